//! Frames: one type byte, a big-endian length that counts itself, a body (protocol documentation,
//! "Message Formats").

/// Bytes before a frame's body: type and length.
pub const HEADER: usize = 5;

/// Why bytes are not a frame. There is no way to resynchronise: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is less than the four bytes it takes itself.
    #[error("invalid message length")]
    Length,
    /// The length exceeds the limit.
    #[error("message of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// The whole frame, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
}

/// A frame's type and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type byte.
    pub tag: u8,
    /// Bytes of the whole frame, header included.
    pub total: usize,
}

impl Header {
    /// Reads a header, if `bytes` begin with a whole one.
    ///
    /// # Errors
    /// When the length cannot be: less than four, or more than `limit` for the whole frame.
    pub fn read(bytes: &[u8], limit: usize) -> Result<Option<Self>, FrameError> {
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        // An Int32: what would be four gigabytes is negative.
        let length = i32::from_be_bytes([a, b, c, d]);
        let Some(length) = usize::try_from(length).ok().filter(|length| *length >= 4) else {
            return Err(FrameError::Length);
        };
        let total = length + 1;
        if total > limit {
            return Err(FrameError::TooLarge { length: total, limit });
        }
        Ok(Some(Self { tag, total }))
    }
}

/// A whole frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type byte.
    pub tag: u8,
    /// Header and body.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first whole frame of `bytes`, if there is one.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn first(bytes: &'a [u8], limit: usize) -> Result<Option<Self>, FrameError> {
        let Some(header) = Header::read(bytes, limit)? else {
            return Ok(None);
        };
        Ok(bytes.get(..header.total).map(|bytes| Self { tag: header.tag, bytes }))
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }
}

/// Reads a message's body from front to back. Every read is checked against the body's end, and
/// [`Reader::end`] insists that nothing is left over: a message that says less than its frame holds
/// is one that somebody else may read differently.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// A body that ended early, went on too long, or lacked a terminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl<'a> Reader<'a> {
    /// Starts at the front of `body`.
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// What has not been read.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// When fewer are left.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Malformed)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    /// A big-endian 16-bit integer.
    ///
    /// # Errors
    /// At the end.
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    /// A big-endian 32-bit integer.
    ///
    /// # Errors
    /// At the end.
    pub fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    /// A big-endian unsigned 32-bit integer.
    ///
    /// # Errors
    /// At the end.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A count of things to come: 16 bits without a sign, so at most 65,535, as the server reads them.
    ///
    /// # Errors
    /// At the end.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        self.array().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    /// Bytes up to a NUL, which is consumed and not returned.
    ///
    /// # Errors
    /// When there is no NUL.
    pub fn cstr(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr::memchr(0, self.rest).ok_or(Malformed)?;
        let (head, tail) = self.rest.split_at_checked(end).ok_or(Malformed)?;
        self.rest = tail.get(1..).ok_or(Malformed)?;
        Ok(head)
    }

    /// Insists that everything was read.
    ///
    /// # Errors
    /// When something is left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_below_four_is_refused_and_a_partial_header_waits() {
        assert_eq!(Header::read(b"Q\0\0\0\x03", 100), Err(FrameError::Length));
        assert_eq!(Header::read(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(Header::read(b"S\0\0\0\x04", 100), Ok(Some(Header { tag: b'S', total: 5 })));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_body_arrives() {
        let error = Header::read(b"Q\x7f\xff\xff\xff", 1 << 20).unwrap_err();

        assert!(matches!(error, FrameError::TooLarge { .. }));
        assert_eq!(Header::read(b"Q\xff\xff\xff\xff", 1 << 20), Err(FrameError::Length));
    }

    #[test]
    fn a_string_without_a_terminator_is_malformed() {
        assert_eq!(Reader::new(b"select 1").cstr(), Err(Malformed));
    }
}
