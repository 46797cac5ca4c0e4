//! Sites, recipes, profiles and plans: which product is computed in which numerics, and why.
