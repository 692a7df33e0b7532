//! The lines of a recording, plain or gzip, in constant memory and without copying each.

use flate2::bufread::MultiGzDecoder;
use memchr::memchr;
use std::io::{self, BufReader, ErrorKind, Read};
use std::{boxed::Box, fmt, vec, vec::Vec};

/// The most bytes that a line may have before its newline; ftrace has room for 8 KiB (`TRACE_SEQ_SIZE`).
const LINE_LIMIT: usize = 64 << 10;
/// The buffer of text. It should stay in the level 2 cache; from 80 to 512 KiB the speed is the same.
const TEXT_BYTES: usize = 256 << 10;
/// The buffer of compressed data.
const GZIP_BYTES: usize = 64 << 10;
/// The first bytes of each gzip member (RFC 1952, 2.3.1 "Member header and trailer").
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

const _: () = assert!(LINE_LIMIT < TEXT_BYTES, "a line that is not complete yet leaves room to read on");

/// Why a recording cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The reader failed.
    #[error("cannot read the recording")]
    Io(#[from] io::Error),
    /// The gzip data is corrupt, ends early, or is followed by something else.
    #[error("gzip data is damaged at or after line {line}: copy or compress the recording again")]
    DamagedGzip {
        /// The first line that could not be delivered, counted from 1.
        line: u64,
        /// What the decoder says.
        source: io::Error,
    },
    /// A line is longer than any that the kernel writes.
    #[error("line {line} is longer than {LINE_LIMIT} bytes: give an ftrace text recording")]
    LineTooLong {
        /// The line's number, counted from 1.
        line: u64,
    },
    /// The last line has no newline, so the recording stopped in the middle of it.
    #[error("line {line} is cut off, it has no newline: copy the recording again or delete the line")]
    CutOff {
        /// The line's number, counted from 1.
        line: u64,
    },
}

/// Hands out the lines of plain or gzip text; the first two bytes decide which of them it is.
///
/// Its buffers have a fixed size, so that memory does not grow with the input.
pub(super) struct Lines<R: Read> {
    source: Source<R>,
    /// Never resized. `start..end` was read but not handed out, and has no newline before `searched`.
    buffer: Vec<u8>,
    start: usize,
    searched: usize,
    end: usize,
    lines: u64,
    bytes: u64,
}

impl<R: Read> Lines<R> {
    /// Looks at the beginning of `reader`, which needs no buffer of its own.
    ///
    /// # Errors
    /// [`InputError::Io`] if the reader fails.
    pub(super) fn new(reader: R) -> Result<Self, InputError> {
        let source = Source::open(reader)?;
        Ok(Self { source, buffer: vec![0; TEXT_BYTES], start: 0, searched: 0, end: 0, lines: 0, bytes: 0 })
    }

    /// Returns the next line without its line end (`\n` or `\r\n`), and its number counted from 1.
    ///
    /// # Errors
    /// Any [`InputError`], after all complete lines before it. There is nothing to read behind one.
    pub(super) fn next_line(&mut self) -> Result<Option<(&[u8], u64)>, InputError> {
        let line = self.lines + 1;
        let newline = loop {
            if let Some(at) = memchr(b'\n', &self.buffer[self.searched..self.end]) {
                break self.searched + at;
            }
            self.searched = self.end;
            if self.end - self.start > LINE_LIMIT {
                return Err(InputError::LineTooLong { line });
            }
            if self.fill()? == 0 {
                return if self.start == self.end { Ok(None) } else { Err(InputError::CutOff { line }) };
            }
        };
        let text = &self.buffer[self.start..newline];
        if text.len() > LINE_LIMIT {
            return Err(InputError::LineTooLong { line });
        }
        self.lines = line;
        self.bytes += text.len() as u64 + 1;
        self.start = newline + 1;
        self.searched = self.start;
        Ok(Some((text.strip_suffix(b"\r").unwrap_or(text), line)))
    }

    /// Returns how many bytes of (decompressed) text the lines so far had, with their line ends.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Moves what is left of the text to the front and reads more behind it; returns how much.
    fn fill(&mut self) -> Result<usize, InputError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.searched -= self.start;
        self.start = 0;
        let read = self.source.read(&mut self.buffer[self.end..], self.lines + 1)?;
        self.end += read;
        Ok(read)
    }
}

impl<R: Read> fmt::Debug for Lines<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines")
            .field("lines", &self.lines)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

enum Source<R: Read> {
    Plain(Raw<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Raw<R>>>>),
}

impl<R: Read> Source<R> {
    fn open(reader: R) -> io::Result<Self> {
        let mut raw = Raw { reader, has_failed: false, head: [0; 2], given: 0, kept: 0 };
        let mut head = [0; 2];
        let mut filled = 0;
        while filled < head.len() {
            match raw.read(&mut head[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        raw = Raw { head, kept: filled, ..raw };
        Ok(if filled == head.len() && head == GZIP_MAGIC {
            Self::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(GZIP_BYTES, raw))))
        } else {
            Self::Plain(raw)
        })
    }

    /// Reads text; `line` is the number that damage is reported at.
    fn read(&mut self, text: &mut [u8], line: u64) -> Result<usize, InputError> {
        match self {
            Self::Plain(raw) => Ok(raw.read(text)?),
            Self::Gzip(decoder) => decoder.read(text).map_err(|source| {
                if decoder.get_ref().get_ref().has_failed {
                    InputError::Io(source)
                } else {
                    InputError::DamagedGzip { line, source }
                }
            }),
        }
    }
}

/// A reader that gives its first bytes again, and remembers whether an error is its own or the decoder's.
struct Raw<R> {
    reader: R,
    has_failed: bool,
    /// The first bytes; those in `given..kept` are still to be given again.
    head: [u8; 2],
    given: usize,
    kept: usize,
}

impl<R: Read> Read for Raw<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.given < self.kept {
            let read = (&self.head[self.given..self.kept]).read(into)?;
            self.given += read;
            return Ok(read);
        }
        loop {
            match self.reader.read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => {
                    self.has_failed |= result.is_err();
                    return result;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
