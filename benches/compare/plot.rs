//! Plots as SVG, with logarithmic axes: a line that grows with the logarithm of what is kept is straight, one that grows
//! with it is not.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A line of a plot.
pub struct Series {
    /// What it is.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const COLOURS: [&str; 4] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700"];

/// Writes one.
pub fn write(file: &Path, title: &str, x_name: &str, y_name: &str, series: &[Series]) {
    let all: Vec<(f64, f64)> = series.iter().flat_map(|series| series.points.iter().copied()).collect();
    let (x_low, x_high) = decades(all.iter().map(|(x, _)| *x));
    let (y_low, y_high) = decades(all.iter().map(|(_, y)| *y));
    let x_at = |x: f64| LEFT + (x.max(1e-9).log10() - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y_at = |y: f64| HEIGHT - BOTTOM - (y.max(1e-9).log10() - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>\n"
    );
    for decade in x_low as i32..=x_high as i32 {
        let x = x_at(10_f64.powi(decade));
        let _ = writeln!(out, "<path d=\"M{x:.1} {TOP}V{:.1}\" stroke=\"#ddd\"/>", HEIGHT - BOTTOM);
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            HEIGHT - BOTTOM + 16.0,
            power(decade)
        );
    }
    for decade in y_low as i32..=y_high as i32 {
        let y = y_at(10_f64.powi(decade));
        let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT);
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            power(decade)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>\n\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y_name}</text>",
        LEFT.midpoint(WIDTH),
        HEIGHT - 10.0,
        HEIGHT / 2.0
    );
    for (number, (line, colour)) in series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let points: Vec<String> = line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for point in &points {
            let (x, y) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let y = TOP + 14.0 * (number as f64 + 1.0);
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{}</text>", LEFT + 8.0, line.name);
    }
    out.push_str("</svg>\n");
    fs::write(file, out).expect("the plot can be written");
}

fn decades(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        figures.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), figure| (low.min(figure), high.max(figure)));
    let (low, high) = (low.max(1e-9).log10().floor(), high.max(1e-9).log10().ceil());
    if high > low { (low, high) } else { (low, low + 1.0) }
}

fn power(decade: i32) -> String {
    match decade {
        0..=3 => format!("{}", 10_i32.pow(decade.unsigned_abs())),
        -3..0 => format!("{}", 10_f64.powi(decade)),
        _ => format!("10^{decade}"),
    }
}
