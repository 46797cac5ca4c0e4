//! Number formats of 4 to 32 bits as plain data: one reference codec, fast slice codecs equal to it bit for bit, counter-based random bits.
