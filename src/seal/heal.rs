//! Putting a secret back where it was cut out, if somebody presents it: so that a request that was kept can be verified
//! again by the very code that refused it.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Scar, Seal};
use crate::provider::{Place, Received};

impl Seal {
    /// The request as it came, where each scar is one of the `candidates`; `None` where one is not, or where scars
    /// overlap. All candidates are compared, in constant time for their length.
    pub fn heal(&self, kept: &Received, scars: &[Scar], candidates: &[Zeroizing<Vec<u8>>]) -> Option<Received> {
        let mut healed = kept.clone();
        for place in [Place::Path, Place::Query, Place::Body] {
            let mut here: Vec<&Scar> = scars.iter().filter(|scar| scar.place == place).collect();
            if here.is_empty() {
                continue;
            }
            // What stands before a scar is whole again when its turn comes: its place is the one in the whole.
            here.sort_by_key(|scar| scar.start);
            let mut bytes = match place {
                Place::Path => healed.path.clone().into_bytes(),
                Place::Query => healed.query.clone().unwrap_or_default().into_bytes(),
                Place::Body => healed.body.to_vec(),
            };
            let mut whole_up_to = 0;
            for scar in here {
                let (start, length) = (usize::try_from(scar.start).ok()?, usize::try_from(scar.length).ok()?);
                if start < whole_up_to || start > bytes.len() {
                    return None;
                }
                let secret = self.found(scar, length, candidates)?;
                bytes.splice(start..start, secret.iter().copied());
                whole_up_to = start + length;
            }
            match place {
                Place::Path => {
                    let before = kept.path.len().saturating_sub(kept.rest.len());
                    healed.path = String::from_utf8(bytes).ok()?;
                    healed.rest = healed.path.get(before..)?.to_owned();
                }
                Place::Query => healed.query = Some(String::from_utf8(bytes).ok()?),
                Place::Body => healed.body = bytes.into(),
            }
        }
        Some(healed)
    }

    fn found<'c>(
        &self,
        scar: &Scar,
        length: usize,
        candidates: &'c [Zeroizing<Vec<u8>>],
    ) -> Option<&'c Zeroizing<Vec<u8>>> {
        let mut found = None;
        for candidate in candidates.iter().filter(|candidate| candidate.len() == length) {
            if bool::from(self.of("cut", candidate).ct_eq(&scar.hmac)) {
                found = Some(candidate);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::provider::Cut;

    fn candidates(texts: &[&str]) -> Vec<Zeroizing<Vec<u8>>> {
        texts.iter().map(|text| Zeroizing::new(text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn what_was_cut_is_put_back_by_whoever_knows_it_and_by_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let seal = Seal::open(folder.path()).expect("a key");
        let received = Received {
            method: Method::POST,
            path: "/k/42/TAGTAG".into(),
            rest: "/42/TAGTAG".into(),
            query: Some("a=1&key=SECRET&again=SECRET".into()),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"sig=OTHER&x=2"),
            remote: "127.0.0.1".parse().expect("an address"),
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let cut = |place, range| Cut { place, range };
        let cuts =
            [cut(Place::Query, 21..27), cut(Place::Path, 6..12), cut(Place::Query, 8..14), cut(Place::Body, 4..9)];
        let (kept, scars) = seal.cut(&received, &cuts);
        assert_eq!((kept.path.as_str(), kept.query.as_deref()), ("/k/42/", Some("a=1&key=&again=")));
        let healed = seal.heal(&kept, &scars, &candidates(&["nobody", "OTHER", "SECRET", "TAGTAG"])).expect("known");
        assert_eq!((&healed.path, &healed.rest, &healed.query), (&received.path, &received.rest, &received.query));
        assert_eq!(healed.body, received.body);
        for missing in [&["SECRET", "TAGTAG"][..], &["OTHER", "SECREt", "TAGTAG"], &[]] {
            assert!(seal.heal(&kept, &scars, &candidates(missing)).is_none(), "{missing:?}");
        }
        let another = tempfile::tempdir().expect("a folder");
        let stranger = Seal::open(another.path()).expect("a key");
        assert!(stranger.heal(&kept, &scars, &candidates(&["OTHER", "SECRET", "TAGTAG"])).is_none());
    }
}
