//! How a judgement ended, deeds included.

/// How a judgement ended, deeds included: the journal's `outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The victim is gone, verified, and SIGKILL went out to it before.
    Killed,
    /// The victim is gone, verified, before SIGKILL reached anybody: it left by itself, after
    /// SIGTERM, a warning, or nothing at all.
    Ended,
    /// The trouble ended on a lower rung.
    Recovered,
    /// The conditions did not hold on fresh facts.
    NotConfirmed,
    /// Nobody may be killed.
    NoVictim,
    /// A deed was tried and the victim lives on.
    Failed,
    /// The verdict stands, the mode forbids the deed.
    Observed,
    /// The verdict stands, deeds are paused; or they were paused before the ladder's last rung.
    Paused,
    /// The verdict stands, the rule has killed too often for this subject, or all rules together on this node.
    Breaker,
    /// The verdict stands and names a victim, or what contains one, that another ladder is asking to go: that kill comes no later
    /// than this one would have.
    Hurried,
    /// The verdict stands; a kill elsewhere on the line must show first what it frees, or there was no place for one more ladder.
    /// It is judged again.
    PutOff,
}

impl Outcome {
    /// Every outcome, in the order of [`Outcome::index`].
    pub const ALL: [Outcome; 11] = [
        Outcome::Killed,
        Outcome::Ended,
        Outcome::Recovered,
        Outcome::NotConfirmed,
        Outcome::NoVictim,
        Outcome::Failed,
        Outcome::Observed,
        Outcome::Paused,
        Outcome::Breaker,
        Outcome::Hurried,
        Outcome::PutOff,
    ];

    /// The journal's and the metrics' word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Outcome::Killed => "killed",
            Outcome::Ended => "ended",
            Outcome::Recovered => "recovered",
            Outcome::NotConfirmed => "not_confirmed",
            Outcome::NoVictim => "no_victim",
            Outcome::Failed => "failed",
            Outcome::Observed => "observed",
            Outcome::Paused => "paused",
            Outcome::Breaker => "breaker",
            Outcome::Hurried => "hurried",
            Outcome::PutOff => "put_off",
        }
    }

    /// Its place in [`Outcome::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
