//! Where the text goes.

use super::RecordError;
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, ErrorKind, Stdout, Write},
    path::{Path, PathBuf},
};

/// An output to which nothing is written yet. Dropped, it leaves no file that was not there, and what was in one.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    /// None for standard output.
    file: Option<File>,
    is_made_in_vain: bool,
}

impl Target {
    /// Opens the output.
    pub(super) fn open(path: &Path) -> Result<Self, RecordError> {
        let (file, is_made_in_vain) = if path == Path::new("-") {
            (None, false)
        } else {
            let opened = open(path).map_err(|source| RecordError::Output { path: path.into(), source })?;
            (Some(opened.0), opened.1)
        };
        Ok(Self { path: path.to_path_buf(), file, is_made_in_vain })
    }

    pub(super) fn is_stdout(&self) -> bool {
        self.file.is_none()
    }

    /// Drops what the file had in it, and writes the first lines.
    pub(super) fn begin(mut self, header: &str) -> Result<Sink, RecordError> {
        let path = self.path.clone();
        let to = match self.file.take() {
            None => To::Stdout(BufWriter::new(io::stdout())),
            Some(file) => {
                empty(&file).map_err(|source| RecordError::Output { path: path.clone(), source })?;
                if path.extension().is_some_and(|extension| extension == "gz") {
                    // Fast: what it takes is recorded too.
                    To::Gzip(Box::new(BufWriter::new(GzEncoder::new(file, Compression::fast()))))
                } else {
                    To::Plain(BufWriter::new(file))
                }
            }
        };
        self.is_made_in_vain = false;
        let mut sink = Sink { path, to };
        sink.write(|out| out.write_all(header.as_bytes()))?;
        Ok(sink)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_made_in_vain {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file for writing, as it is, and tells whether it had to be made.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.write(true);
    match options.clone().create_new(true).open(path) {
        Ok(file) => Ok((file, true)),
        // What is there may also be a link to a file that is not.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Ok((options.create(true).truncate(false).open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Drops what a file has in it; devices and pipes have nothing to drop.
fn empty(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.set_len(0) } else { Ok(()) }
}

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
        fs::write(&path, [b'x'; 9000]).expect("a scratch file");
        let target = Target::open(&path).expect("a file");
        assert_eq!(fs::metadata(&path).expect("the file").len(), 9000);
        let mut sink = target.begin("# tracer: nop\n").expect("written");
        sink.write(|out| out.write_all(b"text\n")).expect("written");
        sink.finish().expect("written");
        let mut text = String::new();
        let file = File::open(&path).expect("the file");
        flate2::read::MultiGzDecoder::new(file)
            .read_to_string(&mut text)
            .expect("gzip and nothing behind it");
        assert_eq!(text, "# tracer: nop\ntext\n");
        fs::remove_file(path).expect("the file");
    }

    #[test]
    fn an_output_in_which_nothing_began_leaves_what_was_there() {
        let path = std::env::temp_dir().join(format!("fpuswitch-vain-{}.txt.gz", std::process::id()));
        drop(Target::open(&path).expect("a file"));
        assert!(!path.exists());
        fs::write(&path, "before").expect("a scratch file");
        drop(Target::open(&path).expect("a file"));
        assert_eq!(fs::read_to_string(&path).expect("the file"), "before");
        fs::remove_file(path).expect("the file");
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_file_s_name() {
        let target = Target::open(Path::new("/dev/full")).expect("a file");
        let begun = target.begin("# tracer: nop\n");
        let error = begun.and_then(|mut sink| sink.finish()).expect_err("no room");
        assert!(matches!(error, RecordError::Output { path, .. } if path == Path::new("/dev/full")));
    }
}
