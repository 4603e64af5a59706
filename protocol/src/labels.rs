//! Labels of workers, such as `region=eu`: an operator's words, by which keys are bound to some of the workers.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Characters in the name of a label, and in its value.
const MAX_PART: usize = 63;

/// Labels of one worker or one key.
pub const MAX_LABELS: usize = 16;

/// A name and a value, written `name=value`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// Why labels are invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// It is not `name=value`.
    #[error("{0:?} is no label: NAME=VALUE, each of 1 to {MAX_PART} letters, digits, and . _ / -")]
    Form(String),
    /// Too many.
    #[error("there are more than {MAX_LABELS} labels")]
    TooMany,
}

impl Label {
    /// What stands before the `=`.
    pub fn name(&self) -> &str {
        self.0.split_once('=').map_or("", |(name, _)| name)
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || b"._/-".contains(&c);
        let part = |part: &str| (1..=MAX_PART).contains(&part.len()) && part.bytes().all(legal);
        match text.split_once('=') {
            Some((name, value)) if part(name) && part(value) => Ok(Self(text.to_owned())),
            _ => Err(LabelError::Form(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of labels, at most [`MAX_LABELS`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Label>", into = "Vec<Label>")]
pub struct Labels(BTreeSet<Label>);

impl Labels {
    /// The set of these.
    ///
    /// # Errors
    /// [`LabelError::TooMany`].
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Result<Self, LabelError> {
        let labels: BTreeSet<Label> = labels.into_iter().collect();
        if labels.len() > MAX_LABELS {
            return Err(LabelError::TooMany);
        }
        Ok(Self(labels))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `label` is in the set.
    pub fn has(&self, label: &Label) -> bool {
        self.0.contains(label)
    }

    /// Whether all of `required` are in the set.
    pub fn cover(&self, required: &Self) -> bool {
        required.0.is_subset(&self.0)
    }

    /// The labels of either set. There may be more than [`MAX_LABELS`] of them; no worker has so many.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).cloned().collect())
    }

    /// Its labels, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Label> {
        self.0.iter()
    }

    /// Reads the labels that a worker tells of itself. What only a newer version takes for a label is passed over: the
    /// worker then gets fewer requests. What is required of a worker is never read like this.
    pub(crate) fn told<'de, D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let told = Vec::<String>::deserialize(d)?;
        let known = told.into_iter().filter_map(|label| label.parse().ok());
        Ok(Self(known.take(MAX_LABELS).collect()))
    }
}

impl TryFrom<Vec<Label>> for Labels {
    type Error = LabelError;

    fn try_from(labels: Vec<Label>) -> Result<Self, LabelError> {
        Self::new(labels)
    }
}

impl From<Labels> for Vec<Label> {
    fn from(labels: Labels) -> Self {
        labels.0.into_iter().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labels(texts: &[&str]) -> Labels {
        Labels::new(texts.iter().map(|text| text.parse().unwrap())).unwrap()
    }

    #[test]
    fn a_label_is_a_name_and_a_value() {
        for wrong in [
            "",
            "a",
            "=b",
            "a=",
            "a=b=c",
            "a=b c",
            "a=ü",
            &format!("a={}", "x".repeat(64)),
        ] {
            assert_eq!(wrong.parse::<Label>(), Err(LabelError::Form(wrong.to_owned())));
        }
        let label: Label = "region=eu/de-1".parse().unwrap();
        assert_eq!((label.name(), &*label.to_string()), ("region", "region=eu/de-1"));
    }

    #[test]
    fn labels_cover_what_they_hold() {
        let worker = labels(&["region=eu", "gpu=a100"]);
        assert!(worker.cover(&labels(&["region=eu"])) && worker.cover(&Labels::default()));
        assert!(!worker.cover(&labels(&["region=us"])));
        assert!(!Labels::default().cover(&labels(&["region=eu"])));
        assert_eq!(labels(&["region=eu"]).or(&labels(&["gpu=a100", "region=eu"])), worker);
        let many = (0..=MAX_LABELS).map(|n| format!("n={n}").parse().unwrap());
        assert_eq!(Labels::new(many), Err(LabelError::TooMany));
    }

    #[test]
    fn a_requirement_that_is_not_understood_is_an_error_and_not_passed_over() {
        let bytes = rmp_serde::to_vec(&["region=eu", "a newer label"]).unwrap();
        assert!(rmp_serde::from_slice::<Labels>(&bytes).is_err());
        let mut reader = rmp_serde::Deserializer::new(bytes.as_slice());
        assert_eq!(Labels::told(&mut reader).unwrap(), labels(&["region=eu"]));
    }
}
