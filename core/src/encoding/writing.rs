//! A serializer around another, which refuses what the other would write and never read back.

use serde::ser::{self, Error, Serialize, Serializer};

use super::MAX_DEPTH;

/// What MessagePack can count.
const MAX_LEN: usize = u32::MAX as usize;

/// Refuses values that are nested too deeply, strings and sequences that are too long, and, where
/// `NIL_IS_NONE`, a `Some` of what is written as nil, as that is read as `None`. For the same
/// reason a unit struct is written as a unit is: serde looks for that where it has to guess.
pub(super) struct Checked<S, const NIL_IS_NONE: bool> {
    inner: S,
    at: At,
}

/// Where in the value it is.
#[derive(Clone, Copy)]
struct At {
    /// So many levels may be below it.
    left: usize,
    /// Right within a `Some`.
    in_some: bool,
}

impl<S: Serializer, const NIL_IS_NONE: bool> Checked<S, NIL_IS_NONE> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, at: At { left: MAX_DEPTH, in_some: false } }
    }

    /// Where the content of a sequence, map, struct or variant is.
    fn below(&self) -> Result<At, S::Error> {
        match self.at.left.checked_sub(1) {
            Some(left) => Ok(At { left, in_some: false }),
            None => Err(S::Error::custom(format!("it is nested in more than {MAX_DEPTH} levels"))),
        }
    }

    fn check_nil(&self) -> Result<(), S::Error> {
        match NIL_IS_NONE && self.at.in_some {
            true => {
                Err(S::Error::custom("a `Some` of `None`, of a unit or of null is read as `None`"))
            }
            false => Ok(()),
        }
    }

    fn check_len(len: Option<usize>) -> Result<(), S::Error> {
        match len {
            Some(len) if len > MAX_LEN => {
                Err(S::Error::custom(format!("it has a part of {len} bytes or elements")))
            }
            _ => Ok(()),
        }
    }
}

/// A value that is yet to be serialized, and where it is.
struct Part<'a, T: ?Sized, const NIL_IS_NONE: bool> {
    value: &'a T,
    at: At,
}

impl<T: Serialize + ?Sized, const NIL_IS_NONE: bool> Serialize for Part<'_, T, NIL_IS_NONE> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Checked::<S, NIL_IS_NONE> { inner: serializer, at: self.at })
    }
}

macro_rules! scalars {
    ($($method:ident $type:ty,)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        }
    )*};
}

impl<S: Serializer, const NIL_IS_NONE: bool> Serializer for Checked<S, NIL_IS_NONE> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Checked<S::SerializeSeq, NIL_IS_NONE>;
    type SerializeTuple = Checked<S::SerializeTuple, NIL_IS_NONE>;
    type SerializeTupleStruct = Checked<S::SerializeTupleStruct, NIL_IS_NONE>;
    type SerializeTupleVariant = Checked<S::SerializeTupleVariant, NIL_IS_NONE>;
    type SerializeMap = Checked<S::SerializeMap, NIL_IS_NONE>;
    type SerializeStruct = Checked<S::SerializeStruct, NIL_IS_NONE>;
    type SerializeStructVariant = Checked<S::SerializeStructVariant, NIL_IS_NONE>;

    scalars! {
        serialize_bool bool,
        serialize_i8 i8,
        serialize_i16 i16,
        serialize_i32 i32,
        serialize_i64 i64,
        serialize_i128 i128,
        serialize_u8 u8,
        serialize_u16 u16,
        serialize_u32 u32,
        serialize_u64 u64,
        serialize_u128 u128,
        serialize_f32 f32,
        serialize_f64 f64,
        serialize_char char,
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        Self::check_len(Some(value.len()))?;
        self.inner.serialize_str(value)
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        Self::check_len(Some(value.len()))?;
        self.inner.serialize_bytes(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.check_nil()?;
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let at = At { in_some: true, ..self.below()? };
        self.inner.serialize_some(&Part::<T, NIL_IS_NONE> { value, at })
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.check_nil()?;
        self.inner.serialize_unit()
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<S::Ok, S::Error> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let at = At { in_some: self.at.in_some, ..self.below()? };
        self.inner.serialize_newtype_struct(name, &Part::<T, NIL_IS_NONE> { value, at })
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let part = Part::<T, NIL_IS_NONE> { value, at: self.below()? };
        self.inner.serialize_newtype_variant(name, index, variant, &part)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        Self::check_len(len)?;
        Ok(Checked { at: self.below()?, inner: self.inner.serialize_seq(len)? })
    }

    #[inline]
    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        Self::check_len(Some(len))?;
        Ok(Checked { at: self.below()?, inner: self.inner.serialize_tuple(len)? })
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        Ok(Checked { at: self.below()?, inner: self.inner.serialize_tuple_struct(name, len)? })
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let at = self.below()?;
        Ok(Checked { at, inner: self.inner.serialize_tuple_variant(name, index, variant, len)? })
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        Self::check_len(len)?;
        Ok(Checked { at: self.below()?, inner: self.inner.serialize_map(len)? })
    }

    #[inline]
    fn serialize_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        Ok(Checked { at: self.below()?, inner: self.inner.serialize_struct(name, len)? })
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let at = self.below()?;
        Ok(Checked { at, inner: self.inner.serialize_struct_variant(name, index, variant, len)? })
    }
}

/// What is made of parts without names, or with one kind of them.
macro_rules! compounds {
    ($($trait:ident { $($method:ident)* })*) => {$(
        impl<C: ser::$trait, const NIL_IS_NONE: bool> ser::$trait for Checked<C, NIL_IS_NONE> {
            type Ok = C::Ok;
            type Error = C::Error;

            $(
                #[inline]
                fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                    self.inner.$method(&Part::<T, NIL_IS_NONE> { value, at: self.at })
                }
            )*

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

compounds! {
    SerializeSeq { serialize_element }
    SerializeTuple { serialize_element }
    SerializeTupleStruct { serialize_field }
    SerializeTupleVariant { serialize_field }
    SerializeMap { serialize_key serialize_value }
}

macro_rules! structs {
    ($($trait:ident)*) => {$(
        impl<C: ser::$trait, const NIL_IS_NONE: bool> ser::$trait for Checked<C, NIL_IS_NONE> {
            type Ok = C::Ok;
            type Error = C::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                self.inner.serialize_field(key, &Part::<T, NIL_IS_NONE> { value, at: self.at })
            }

            #[inline]
            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            #[inline]
            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}

structs! { SerializeStruct SerializeStructVariant }
