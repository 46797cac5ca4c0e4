//! Dropout with a mask that is drawn again instead of stored.
