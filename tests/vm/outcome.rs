//! How a scenario ends: nothing, or a sentence that says what was expected and what was seen.

/// The error is for people: one sentence with the numbers in it.
pub type Outcome<T = ()> = Result<T, String>;

/// Ends the scenario with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err(format!($($message)+));
        }
    };
}

/// Says what was being done when an error of the system came up.
pub trait Doing<T> {
    /// `doing` reads on after "could not".
    fn doing(self, doing: impl std::fmt::Display) -> Outcome<T>;
}

impl<T, E: std::fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl std::fmt::Display) -> Outcome<T> {
        self.map_err(|error| format!("could not {doing}: {error}"))
    }
}
