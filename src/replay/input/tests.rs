use super::*;
use flate2::{Compression, write::GzEncoder};
use std::{format, io::Write, string::String};

/// Gives one byte at a time and is interrupted before each.
struct Trickle<'a>(&'a [u8], bool);

impl Read for Trickle<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 { Err(ErrorKind::Interrupted.into()) } else { self.0.read(&mut into[..1]) }
    }
}

/// Gives its bytes and then fails.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(ErrorKind::UnexpectedEof.into()) } else { self.0.read(into) }
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// Returns the lines before the end or the error, joined by newlines, and the error.
fn read(reader: impl Read) -> (Vec<u8>, Option<InputError>) {
    let mut text = Vec::new();
    let mut lines = Lines::new(reader).unwrap();
    let mut last = 0;
    let error = loop {
        match lines.next_line() {
            Ok(Some((line, number))) => {
                assert_eq!(number, last + 1);
                last = number;
                text.extend_from_slice(line);
                text.push(b'\n');
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert_eq!(lines.buffer.capacity(), TEXT_BYTES, "memory does not grow");
    (text, error)
}

#[track_caller]
fn assert_reads(reader: impl Read, text: &[u8]) {
    let (lines, error) = read(reader);
    assert!(error.is_none(), "{error:?}");
    assert!(lines == text);
}

fn many_lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("line {n} {:x}\n", n.wrapping_mul(0x9e37_79b9)).into_bytes()).collect()
}

#[test]
fn plain_gzip_and_trickled_text_give_the_same_lines() {
    for text in [&b""[..], b"\n", b"a\n", b"\n\na\n\n", &many_lines(50_000)] {
        assert_reads(text, text);
        assert_reads(&gzip(text)[..], text);
        assert_reads(Trickle(text, false), text);
        assert_reads(Trickle(&gzip(text), false), text);
    }
}

#[test]
fn gzip_members_follow_each_other_inside_a_line() {
    let members = [gzip(b"one\ntw"), gzip(b""), gzip(b"o\nthree\n")].concat();
    assert_reads(&members[..], b"one\ntwo\nthree\n");
    assert_reads(Trickle(&members, false), b"one\ntwo\nthree\n");
}

#[test]
fn line_ends_are_stripped_and_counted() {
    let mut lines = Lines::new(&b"one\r\n\r\nt\rwo\n"[..]).unwrap();
    for (line, number, bytes) in [(&b"one"[..], 1, 5), (b"", 2, 7), (b"t\rwo", 3, 12)] {
        assert_eq!(lines.next_line().unwrap(), Some((line, number)));
        assert_eq!(lines.bytes(), bytes);
    }
    assert_eq!(lines.next_line().unwrap(), None);
    assert_eq!(lines.next_line().unwrap(), None);
}

#[test]
fn text_without_a_last_newline_is_cut_off() {
    for text in [&b"one\ntwo"[..], b"one\ntwo\r"] {
        for input in [text, &gzip(text)] {
            let (lines, error) = read(input);
            assert_eq!(lines, b"one\n");
            assert!(matches!(error, Some(InputError::CutOff { line: 2 })), "{error:?}");
        }
    }
    // One byte of the magic alone cannot be told from text.
    assert!(matches!(read(&GZIP_MAGIC[..1]).1, Some(InputError::CutOff { line: 1 })));
}

#[test]
fn lines_up_to_the_limit_pass_at_any_place_in_the_buffer() {
    for short_lines in [0, 1, TEXT_BYTES - LINE_LIMIT, TEXT_BYTES - 1000, TEXT_BYTES - 1, TEXT_BYTES] {
        for (long_bytes, fits) in [(LINE_LIMIT - 1, true), (LINE_LIMIT, true), (LINE_LIMIT + 1, false)] {
            let short = vec![b'\n'; short_lines];
            let text = [&short[..], &vec![b'x'; long_bytes], b"\n"].concat();
            for input in [&text, &gzip(&text)] {
                let (lines, error) = read(&input[..]);
                assert_eq!(lines.len(), if fits { text.len() } else { short_lines });
                let line_of_error = match error {
                    None => None,
                    Some(InputError::LineTooLong { line }) => Some(line),
                    Some(error) => panic!("{error:?}"),
                };
                assert_eq!(line_of_error, (!fits).then_some(short_lines as u64 + 1));
            }
        }
    }
    let endless = io::repeat(b'x');
    assert!(matches!(read(endless).1, Some(InputError::LineTooLong { line: 1 })));
}

#[test]
fn gzip_cut_anywhere_is_damaged() {
    let text = many_lines(300);
    let whole = gzip(&text);
    for cut in 2..whole.len() {
        let (lines, error) = read(&whole[..cut]);
        assert!(text.starts_with(&lines));
        let next = lines.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
        match error {
            Some(InputError::DamagedGzip { line, .. }) => assert_eq!(line, next),
            error => panic!("cut at {cut}: {error:?}"),
        }
    }
}

#[test]
fn no_changed_byte_of_gzip_data_goes_unnoticed() {
    let text = many_lines(300);
    let whole = gzip(&text);
    for at in 2..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        match read(&changed[..]) {
            (_, Some(InputError::DamagedGzip { .. })) => {}
            // Time, compression level and system in the header: RFC 1952, 2.3.
            (lines, None) => assert!((4..10).contains(&at) && lines == text, "byte {at}"),
            (_, error) => panic!("byte {at}: {error:?}"),
        }
    }
}

#[test]
fn anything_behind_gzip_data_is_damage() {
    for tail in [&b"\0"[..], b"\n", b"text\n", &GZIP_MAGIC, &[0; 512]] {
        let (lines, error) = read(&[&gzip(b"one\n")[..], tail].concat()[..]);
        assert_eq!(lines, b"one\n");
        assert!(matches!(error, Some(InputError::DamagedGzip { line: 2, .. })), "{tail:?}: {error:?}");
    }
}

#[test]
fn the_readers_own_error_is_not_taken_for_damage() {
    assert!(matches!(Lines::new(Failing(b"")), Err(InputError::Io(_))));
    let whole = gzip(b"one\ntwo\n");
    for input in [&b"one\nt"[..], &whole, &whole[..5], &whole[..whole.len() - 3]] {
        let error = read(Failing(input)).1;
        assert!(matches!(error, Some(InputError::Io(_))), "{error:?}");
    }
}

#[test]
fn errors_name_the_line_and_keep_their_source() {
    let error = read(&gzip(b"one\n")[..12]).1.unwrap();
    let source = std::error::Error::source(&error).map(|source| format!("{source}"));
    assert_eq!(format!("{error}").find("line 1:"), Some("gzip data is damaged at or after ".len()));
    assert!(source.is_some_and(|source: String| !source.is_empty()));
}
