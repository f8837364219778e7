//! Facts about a guest of this family.
