//! The forms in which serde writes what people read: durations and ids.

/// A duration as text: `250ms`, `1m 30s`.
pub(crate) mod duration {
    use std::fmt;
    use std::time::Duration;

    use serde::de::{self, Visitor};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_str(Text)
    }

    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a duration such as \"250ms\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text)
                .map_err(|error| E::custom(format!("{text:?} is no duration: {error}")))
        }
    }

    /// One that may be missing.
    pub(crate) mod option {
        use serde::Serialize;

        use super::{Deserialize, Deserializer, Duration, Serializer};

        #[derive(Serialize, Deserialize)]
        struct Some(#[serde(with = "super")] Duration);

        pub(crate) fn serialize<S: Serializer>(
            value: &Option<Duration>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            value.map(Some).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<Some>::deserialize(from)?.map(|Some(value)| value))
        }
    }
}

/// Has serde write these types as [`ToString`] gives them, or as another form that is given, and
/// read them with [`FromStr`](std::str::FromStr). As text they can be keys of a map in JSON, and
/// lose nothing in languages whose numbers have 53 bits.
macro_rules! serde_as_text {
    ($($type:ty => $format:literal($($field:tt),*));* $(;)?) => { $(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(&format_args!($format, $(self.$field),*))
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )* };
}
pub(crate) use serde_as_text;
