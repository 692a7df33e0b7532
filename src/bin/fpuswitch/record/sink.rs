//! Where the text goes.

use super::RecordError;
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Stdout, Write},
    path::{Path, PathBuf},
};

/// An output, plain or compressed.
#[derive(Debug)]
pub(super) struct Sink {
    path: PathBuf,
    to: To,
}

#[derive(Debug)]
enum To {
    Stdout(BufWriter<Stdout>),
    Plain(BufWriter<File>),
    /// Behind a buffer: the encoder is slow at small pieces.
    Gzip(Box<BufWriter<GzEncoder<File>>>),
}

impl Sink {
    /// Opens the output. What a file has in it stays there until [`begin`](Self::begin).
    pub(super) fn open(path: &Path) -> Result<Self, RecordError> {
        let open = || OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let to = if path == Path::new("-") {
            To::Stdout(BufWriter::new(io::stdout()))
        } else {
            let file = open().map_err(|source| RecordError::Output { path: path.into(), source })?;
            if path.extension().is_some_and(|extension| extension == "gz") {
                // Fast: what it takes is recorded too.
                To::Gzip(Box::new(BufWriter::new(GzEncoder::new(file, Compression::fast()))))
            } else {
                To::Plain(BufWriter::new(file))
            }
        };
        Ok(Self { path: path.to_path_buf(), to })
    }

    pub(super) fn is_stdout(&self) -> bool {
        matches!(self.to, To::Stdout(_))
    }

    /// Drops what the file had in it, and writes the first lines.
    pub(super) fn begin(&mut self, header: &str) -> Result<(), RecordError> {
        let file = match &self.to {
            To::Stdout(_) => None,
            To::Plain(out) => Some(out.get_ref()),
            To::Gzip(out) => Some(out.get_ref().get_ref()),
        };
        let emptied = file.map_or(Ok(()), |file| {
            // Devices and pipes have nothing to drop.
            if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
        });
        emptied.map_err(|source| RecordError::Output { path: self.path.clone(), source })?;
        self.write(|out| out.write_all(header.as_bytes()))
    }

    /// Lets `write` write.
    pub(super) fn write(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), RecordError> {
        let written = match &mut self.to {
            To::Stdout(out) => write(out),
            To::Plain(out) => write(out),
            To::Gzip(out) => write(out.as_mut()),
        };
        written.map_err(|source| RecordError::Output { path: self.path.clone(), source })
    }

    /// Writes what is still held back, and the end of compressed data.
    pub(super) fn finish(&mut self) -> Result<(), RecordError> {
        let finished = match &mut self.to {
            To::Stdout(out) => out.flush(),
            To::Plain(out) => out.flush(),
            To::Gzip(out) => out.flush().and_then(|()| out.get_mut().try_finish()),
        };
        finished.map_err(|source| RecordError::Output { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_file_keeps_its_content_until_the_recording_begins() {
        let path = std::env::temp_dir().join(format!("fpuswitch-sink-{}.txt.gz", std::process::id()));
        std::fs::write(&path, [b'x'; 9000]).expect("a scratch file");
        let mut sink = Sink::open(&path).expect("a sink");
        assert_eq!(std::fs::metadata(&path).expect("the file").len(), 9000);
        sink.begin("# tracer: nop\n").expect("written");
        sink.write(|out| out.write_all(b"text\n")).expect("written");
        sink.finish().expect("written");
        let mut text = String::new();
        let file = File::open(&path).expect("the file");
        flate2::read::MultiGzDecoder::new(file)
            .read_to_string(&mut text)
            .expect("gzip and nothing behind it");
        assert_eq!(text, "# tracer: nop\ntext\n");
        std::fs::remove_file(path).expect("the file");
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_file_s_name() {
        let mut sink = Sink::open(Path::new("/dev/full")).expect("a sink");
        let error = sink.begin("# tracer: nop\n").and_then(|()| sink.finish()).expect_err("no room");
        assert!(matches!(error, RecordError::Output { path, .. } if path == Path::new("/dev/full")));
    }
}
