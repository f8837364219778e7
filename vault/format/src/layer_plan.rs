//! Which map layers a cycle writes, merges and names (an LSM tree): a pure decision.

/// Layers of about one size that are merged into one.
pub const FAN_OUT: usize = 8;
/// Inline layers together, in bytes; what exceeds it becomes an object.
pub const INLINE_LIMIT_BYTES: u64 = 64 * 1024;

/// A layer that exists, or the one being added: what the plan needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSize {
    /// Positions that it holds.
    pub positions: u64,
    /// Encoded bytes, about.
    pub bytes: u64,
    pub inline: bool,
}

/// What to do with a disk's layers: the newest `merge` of them (the cycle's own included, index 0) become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// How many of the newest layers become one; 1 for the cycle's own alone.
    pub merge: usize,
    /// Whether that one is written as an object.
    pub object: bool,
}

/// `layers`: newest first, index 0 the positions changed in this cycle. `mapped` is how many positions the whole map
/// has, the base's size: a merge of an eighth of it or more is left to prune, which works in the region.
pub fn plan_layers(layers: &[LayerSize], mapped: u64) -> LayerPlan {
    let Some(own) = layers.first() else {
        return LayerPlan {
            merge: 0,
            object: false,
        };
    };
    let inline: Vec<&LayerSize> = layers.iter().take_while(|l| l.inline).collect();
    if inline.iter().map(|l| l.bytes).sum::<u64>() <= INLINE_LIMIT_BYTES && own.inline {
        return LayerPlan {
            merge: if inline.len() > FAN_OUT {
                inline.len()
            } else {
                1
            },
            object: false,
        };
    }
    let mut merge = inline.len().max(1);
    let mut positions: u64 = layers[..merge].iter().map(|l| l.positions).sum();
    // Take in the next FAN_OUT − 1 layers wherever they are of this size class, again and again.
    loop {
        let alike = layers[merge..]
            .iter()
            .take_while(|l| class(l.positions) <= class(positions))
            .count();
        if alike < FAN_OUT - 1 {
            return LayerPlan {
                merge,
                object: true,
            };
        }
        let sum = positions
            + layers[merge..merge + alike]
                .iter()
                .map(|l| l.positions)
                .sum::<u64>();
        if sum * 8 > mapped {
            return LayerPlan {
                merge,
                object: true,
            };
        }
        (merge, positions) = (merge + alike, sum);
    }
}

/// Size class: powers of the fan-out.
fn class(positions: u64) -> u32 {
    positions.max(1).ilog(FAN_OUT as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(bytes: u64) -> LayerSize {
        LayerSize {
            positions: bytes / 45,
            bytes,
            inline: true,
        }
    }

    fn object(positions: u64) -> LayerSize {
        LayerSize {
            positions,
            bytes: positions * 33,
            inline: false,
        }
    }

    #[test]
    fn small_layers_stay_inline_until_together_they_are_not_small() {
        assert_eq!(
            plan_layers(&[inline(900)], 1 << 20),
            LayerPlan {
                merge: 1,
                object: false
            }
        );
        assert_eq!(
            plan_layers(&[inline(900), inline(30_000), object(9)], 1 << 20),
            LayerPlan {
                merge: 1,
                object: false
            }
        );
        let full = [inline(40_000), inline(30_000), object(1 << 20)];
        assert_eq!(
            plan_layers(&full, 1 << 20),
            LayerPlan {
                merge: 2,
                object: true
            }
        );
        assert_eq!(
            plan_layers(&[inline(90); 9], 1 << 20),
            LayerPlan {
                merge: 9,
                object: false
            }
        );
    }

    #[test]
    fn eight_objects_of_a_class_become_one_unless_that_is_an_eighth_of_the_base() {
        let mut layers = vec![object(2000); 8];
        layers.push(object(1 << 20));
        assert_eq!(
            plan_layers(&layers, 1 << 20),
            LayerPlan {
                merge: 8,
                object: true
            }
        );
        assert_eq!(
            plan_layers(&layers, 100_000),
            LayerPlan {
                merge: 1,
                object: true
            }
        );
        assert_eq!(
            plan_layers(&layers[1..], 1 << 20),
            LayerPlan {
                merge: 1,
                object: true
            },
            "seven are too few"
        );
    }

    #[test]
    fn nothing_to_write_is_nothing_to_merge() {
        assert_eq!(
            plan_layers(&[], 0),
            LayerPlan {
                merge: 0,
                object: false
            }
        );
    }
}
