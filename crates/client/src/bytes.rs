//! Keys and values as they come from a caller: what is owned is taken, what is borrowed is copied.

use bytes::Bytes;

/// Anything that can be a key or a value.
///
/// `Bytes`, `Vec<u8>` and `String` are taken as they are; `&str`, `&[u8]` and arrays are copied.
///
/// ```
/// use etch_client::IntoBytes;
///
/// assert_eq!("key".into_bytes(), String::from("key").into_bytes());
/// assert_eq!([1, 2].into_bytes(), vec![1, 2].into_bytes());
/// ```
pub trait IntoBytes {
    /// The bytes.
    fn into_bytes(self) -> Bytes;
}

macro_rules! owned {
    ($($type:ty)*) => {
        $(impl IntoBytes for $type {
            fn into_bytes(self) -> Bytes {
                Bytes::from(self)
            }
        })*
    };
}

macro_rules! borrowed {
    ($($type:ty)*) => {
        $(impl IntoBytes for $type {
            fn into_bytes(self) -> Bytes {
                Bytes::copy_from_slice(self.as_ref())
            }
        })*
    };
}

owned! { Bytes String Vec<u8> Box<[u8]> }
borrowed! { &str &[u8] &String &Vec<u8> }

impl IntoBytes for &Bytes {
    fn into_bytes(self) -> Bytes {
        self.clone()
    }
}

impl<const N: usize> IntoBytes for [u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self)
    }
}

impl<const N: usize> IntoBytes for &[u8; N] {
    fn into_bytes(self) -> Bytes {
        Bytes::copy_from_slice(self)
    }
}
