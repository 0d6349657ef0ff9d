//! Personal tokens.

use jiff::Timestamp;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::secret::{Kind, SecretHash};
use super::{AuthenticatedReviewer, Directory, NotRecognised, ReviewerIdentity};
use crate::actor::{Assurance, ChannelName};

/// Personal tokens (`csr_..`), for the API and the command line. They are as good as a click.
#[derive(Clone, Copy, Debug)]
pub struct PersonalTokens;

impl ReviewerIdentity for PersonalTokens {
    type Proof<'a> = &'a str;

    fn recognise(
        &self,
        directory: &Directory,
        token: &str,
        _: Timestamp,
    ) -> Result<AuthenticatedReviewer, NotRecognised> {
        if token.starts_with(Kind::Agent.prefix()) {
            return Err(NotRecognised::AgentCredential);
        }
        if !token.starts_with(Kind::Reviewer.prefix()) {
            return Err(NotRecognised::Unknown);
        }
        let shown = SecretHash::of(token);
        // Every token is compared, whichever fits: how long it takes tells nothing.
        let mut place = u64::MAX;
        for (number, entry) in (0_u64..).zip(directory.reviewers()) {
            for known in &entry.tokens {
                place.conditional_assign(&number, known.same(&shown));
            }
        }
        let nobody: Choice = place.ct_eq(&u64::MAX);
        if nobody.into() {
            return Err(NotRecognised::Unknown);
        }
        let place = usize::try_from(place).map_err(|_| NotRecognised::Unknown)?;
        let entry = directory.reviewers().nth(place).ok_or(NotRecognised::Unknown)?;
        if directory.is_an_agents(token) {
            return Err(NotRecognised::AgentCredential);
        }
        Ok(AuthenticatedReviewer::new(entry.reviewer.clone(), Assurance::Click, ChannelName::Api))
    }
}
