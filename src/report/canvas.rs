//! What pictures are drawn on: an SVG in memory.

use core::ops::Range;
use plotters::{
    coord::Shift,
    drawing::DrawingAreaErrorKind,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::string::{String, ToString};

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A picture that cannot be drawn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot draw the picture: {0}")]
pub struct PictureError(String);

impl<E: core::error::Error + Send + Sync> From<DrawingAreaErrorKind<E>> for PictureError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self(error.to_string())
    }
}

pub(super) const INK: RGBColor = RGBColor(30, 30, 30);
pub(super) const FAINT: RGBColor = RGBColor(200, 200, 200);

/// Where a text lies beside its point.
#[derive(Clone, Copy)]
pub(super) enum At {
    Left,
    Centre,
    Right,
}

/// Draws a picture of this size on white.
pub(super) fn draw(
    size: (u32, u32),
    picture: impl FnOnce(&Canvas<'_>) -> Result<(), PictureError>,
) -> Result<String, PictureError> {
    let mut svg = String::new();
    let canvas = Canvas { area: SVGBackend::with_string(&mut svg, size).into_drawing_area() };
    canvas.area.fill(&WHITE)?;
    picture(&canvas)?;
    canvas.area.present()?;
    drop(canvas);
    Ok(svg)
}

/// A surface, in pixels from the upper left.
pub(super) struct Canvas<'a> {
    pub(super) area: Area<'a>,
}

impl Canvas<'_> {
    pub(super) fn rect(&self, x: Range<i32>, y: Range<i32>, colour: RGBColor) -> Result<(), PictureError> {
        Ok(self.area.draw(&Rectangle::new([(x.start, y.start), (x.end, y.end)], colour.filled()))?)
    }

    pub(super) fn frame(&self, x: Range<i32>, y: Range<i32>, colour: RGBColor) -> Result<(), PictureError> {
        Ok(self.area.draw(&Rectangle::new([(x.start, y.start), (x.end, y.end)], colour.stroke_width(1)))?)
    }

    pub(super) fn line(
        &self,
        from: (i32, i32),
        to: (i32, i32),
        colour: RGBColor,
    ) -> Result<(), PictureError> {
        Ok(self.area.draw(&PathElement::new([from, to], colour.stroke_width(1)))?)
    }

    /// Text of this height in pixels, its middle at the point's height. Characters that XML has no room for become `·`.
    pub(super) fn text(
        &self,
        point: (i32, i32),
        text: &str,
        height: u32,
        at: At,
    ) -> Result<(), PictureError> {
        let horizontal = match at {
            At::Left => HPos::Left,
            At::Centre => HPos::Center,
            At::Right => HPos::Right,
        };
        let style = ("sans-serif", f64::from(height) * FONT_UNITS).into_font().color(&INK);
        let style = style.pos(Pos::new(horizontal, VPos::Center));
        let text: String = text.chars().map(|c| if is_xml(c) { c } else { '·' }).collect();
        Ok(self.area.draw_text(&text, &style, point)?)
    }
}

/// What the SVG back end divides sizes of fonts by.
pub(super) const FONT_UNITS: f64 = 1.24;

/// Whether XML 1.0 can hold a character (section 2.2 "Characters"), and people can see it.
fn is_xml(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}')
}
