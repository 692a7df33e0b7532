//! What `fpuswitch replay` draws of a recording.

use crate::{Status, complain};
use fpuswitch::{
    replay::{Costs, Report, Timeline, Window, WindowError},
    report::{PictureError, cost_plot, perfetto, timeline_svg},
};
use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

#[derive(clap::Args)]
pub(crate) struct Pictures {
    /// Draw a timeline of one recording under the first --policy (or owner-slot): whose state the registers of each CPU
    /// hold, and what is saved, restored and skipped.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Draw what the policies cost in one recording, and the break-even curves with its point on them.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write the timeline of one recording as JSON for the Perfetto UI.
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// Where timelines begin, in seconds since the recording's first event.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    from: Option<f64>,
    /// Where they end.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    to: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PicturesError {
    #[error("a picture shows one recording: name one file, not {0}")]
    OneRecording(usize),
    #[error("--from and --to choose a part of a timeline: expected --svg or --perfetto beside them")]
    NoTimeline,
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error(transparent)]
    Picture(#[from] PictureError),
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

impl Pictures {
    /// What part of a recording pictures are wanted of, if any are.
    pub(crate) fn window(&self, files: usize) -> Result<Option<Window>, PicturesError> {
        let timeline = self.svg.is_some() || self.perfetto.is_some();
        if !timeline && (self.from.is_some() || self.to.is_some()) {
            return Err(PicturesError::NoTimeline);
        }
        if !timeline && self.plot.is_none() {
            return Ok(None);
        }
        if files != 1 {
            return Err(PicturesError::OneRecording(files));
        }
        Ok(Some(Window::new(self.from, self.to)?))
    }

    pub(crate) fn draw(&self, name: &str, report: &Report, timeline: &Timeline, costs: &Costs) -> Status {
        let short = Path::new(name).file_name().map_or(name.into(), |name| name.to_string_lossy());
        let drawn = [
            (&self.svg, write_text(&self.svg, || timeline_svg(&short, timeline))),
            (&self.plot, write_text(&self.plot, || cost_plot(&short, report, costs))),
            (&self.perfetto, write(&self.perfetto, |out| Ok(perfetto(out, &short, timeline)?))),
        ];
        let mut status = Status::Fine;
        for (file, drawn) in drawn {
            if let (Some(file), Err(error)) = (file, drawn) {
                status = complain(&file.display().to_string(), &error);
            }
        }
        status
    }
}

fn write_text(
    file: &Option<PathBuf>,
    draw: impl FnOnce() -> Result<String, PictureError>,
) -> Result<(), PicturesError> {
    write(file, |out| Ok(out.write_all(draw()?.as_bytes())?))
}

fn write(
    file: &Option<PathBuf>,
    content: impl FnOnce(&mut BufWriter<File>) -> Result<(), PicturesError>,
) -> Result<(), PicturesError> {
    let Some(file) = file else { return Ok(()) };
    let mut out = BufWriter::new(File::create(file)?);
    content(&mut out)?;
    Ok(out.flush()?)
}
