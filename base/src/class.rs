//! The class of an input: whether somebody waits for it now.

/// Live or bulk. Bulk yields to live and is never starved. The class changes when things happen, never what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputClass {
    /// Somebody waits for it.
    #[default]
    Live,
    /// Part of a bounded input, or of what one caused.
    Bulk,
}

impl InputClass {
    /// Whether it is bulk.
    #[must_use]
    pub fn is_bulk(self) -> bool {
        self == Self::Bulk
    }

    /// The class of what several inputs cause together: bulk only if all of them are.
    #[must_use]
    pub fn of_all(classes: impl IntoIterator<Item = Self>) -> Self {
        classes.into_iter().min().unwrap_or_default()
    }
}

impl From<bool> for InputClass {
    /// Bulk, if true.
    fn from(is_bulk: bool) -> Self {
        if is_bulk { Self::Bulk } else { Self::Live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_live_input_makes_all_live() {
        assert_eq!(InputClass::of_all([InputClass::Bulk, InputClass::Live]), InputClass::Live);
        assert_eq!(InputClass::of_all([InputClass::Bulk, InputClass::Bulk]), InputClass::Bulk);
        assert_eq!(InputClass::of_all([]), InputClass::Live);
    }
}
