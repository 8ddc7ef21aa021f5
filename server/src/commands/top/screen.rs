//! Frames on a terminal, until q, Escape, Ctrl-C or a signal. The terminal is put back also after a panic.

use super::Watch;
use super::frame::{Frame, Part};
use crate::commands::output::Mood;
use crate::exit::{Exit, Failed};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a signal may go unnoticed.
const GLANCE: Duration = Duration::from_millis(100);

/// Shows frames until somebody has seen enough.
///
/// # Errors
/// The terminal cannot be used.
pub(super) fn run(mut watch: Watch) -> Result<(), Failed> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(|error| unusable(&error))?;
    }
    let mut terminal = ratatui::try_init().map_err(|error| unusable(&error))?;
    let result = show(&mut terminal, &mut watch, &ended);
    ratatui::restore();
    result.map_err(|error| unusable(&error))
}

fn unusable(error: &io::Error) -> Failed {
    Failed::new(Exit::Internal, format!("the terminal cannot be used: {error}; --once prints one frame anywhere"))
}

fn show(terminal: &mut DefaultTerminal, watch: &mut Watch, ended: &AtomicBool) -> io::Result<()> {
    let (mut frame, mut trouble) = (None, None);
    let mut next = now() + watch.interval;
    loop {
        terminal.draw(|area| draw(area, frame.as_ref(), trouble.as_deref()))?;
        while now() < next {
            if ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            if event::poll(GLANCE.min(next.saturating_duration_since(now())))? {
                match event::read()? {
                    Event::Key(key) if is_end(key) => return Ok(()),
                    Event::Resize(..) => break,
                    _ => {}
                }
            }
        }
        if now() >= next {
            next = now() + watch.interval;
            match watch.look() {
                Ok(looked) => (frame, trouble) = (Some(looked), None),
                Err(failed) => trouble = Some(failed.message),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a person waits in real time")]
fn now() -> Instant {
    Instant::now()
}

fn is_end(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

/// The whole screen: a line on top, then the parts, each as high as its rows as far as there is room.
fn draw(area: &mut ratatui::Frame<'_>, frame: Option<&Frame>, trouble: Option<&str>) {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let parts = frame.map_or(&[][..], |frame| &frame.parts);
    let mut heights = vec![Constraint::Length(2)];
    heights.extend(parts.iter().map(|part| Constraint::Max(height_of(part))));
    heights.push(Constraint::Min(0));
    let places = Layout::vertical(heights).split(area.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let first = match (trouble, frame) {
        (Some(trouble), _) => Line::styled(trouble.to_owned(), style_of(Mood::Bad, colours)),
        (None, Some(frame)) => Line::styled(frame.summary.clone(), bold),
        (None, None) => Line::raw("looking at the server"),
    };
    let help = Line::raw("q ends; queued: events, inputs, messages; flush p50 and p99 since the start");
    area.render_widget(Paragraph::new(vec![first, help]), places[0]);
    for (part, place) in parts.iter().zip(places.iter().skip(1)) {
        draw_part(area, part, *place, colours);
    }
}

/// Title, head, and a line for each row, or for the word that there is none.
fn height_of(part: &Part) -> u16 {
    let rows = part.rows.len().max(1);
    u16::try_from(rows + usize::from(!part.rows.is_empty()) + 1).unwrap_or(u16::MAX)
}

fn draw_part(area: &mut ratatui::Frame<'_>, part: &Part, place: Rect, colours: bool) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let block = Block::new().borders(Borders::TOP).title(Line::styled(format!(" {} ", part.title), bold));
    if part.rows.is_empty() {
        return area.render_widget(Paragraph::new(part.empty).block(block), place);
    }
    let width = |at: usize| {
        let cells = part.rows.iter().map(|(cells, _)| cells[at].chars().count());
        let width = cells.chain([part.head[at].len()]).max().unwrap_or(0);
        u16::try_from(width).unwrap_or(u16::MAX)
    };
    let widths: Vec<u16> = (0..part.head.len()).map(width).collect();
    let right: Vec<bool> =
        (0..part.head.len()).map(|at| part.rows.iter().all(|(cells, _)| is_figure(&cells[at]))).collect();
    let aligned = |at: usize, text: &str| {
        let blank = usize::from(widths[at]).saturating_sub(text.chars().count());
        Cell::new(if right[at] { " ".repeat(blank) + text } else { text.to_owned() })
    };
    let head = Row::new(part.head.iter().enumerate().map(|(at, name)| aligned(at, name))).style(bold);
    let rows = part.rows.iter().map(|(cells, mood)| {
        let cells = cells.iter().enumerate().map(|(at, cell)| aligned(at, cell));
        Row::new(cells).style(style_of(*mood, colours))
    });
    let table = Table::new(rows, widths.iter().map(|width| Constraint::Length(*width))).header(head);
    area.render_widget(table.column_spacing(2).block(block), place);
}

fn is_figure(cell: &str) -> bool {
    cell.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.' | '-' | '%' | ' '))
}

fn style_of(mood: Mood, colours: bool) -> Style {
    match mood {
        Mood::Bad if !colours => Style::new().add_modifier(Modifier::REVERSED),
        _ if !colours => Style::new(),
        Mood::Plain => Style::new(),
        Mood::Good => Style::new().fg(Color::Green),
        Mood::Odd => Style::new().fg(Color::Yellow),
        Mood::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::super::sample::tests::status;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(width: u16, height: u16, trouble: Option<&str>) -> String {
        let look = |times, at| Sample::new(&status(times), at).unwrap();
        let frame = Frame::between(&look(1, 0), &look(2, 1_000_000_000));
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|area| draw(area, Some(&frame), trouble)).unwrap();
        let cells: Vec<&str> = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        cells.chunks(usize::from(width)).map(|line| line.concat().trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn everything_is_on_a_screen_of_ordinary_size() {
        let screen = screen(132, 30, None);
        for wanted in ["requests 2,000/s", "rec/flush", "shop/orders", "shop/stock.take", "hot keys", "30.0 %"] {
            assert!(screen.contains(wanted), "{wanted} in\n{screen}");
        }
    }

    #[test]
    fn small_screens_and_trouble_are_survived() {
        for (width, height) in [(1, 1), (20, 5), (80, 24)] {
            let _ = screen(width, height, None);
        }
        assert!(screen(80, 24, Some("the server cannot be reached")).starts_with("the server cannot be reached\n"));
    }

    #[test]
    fn who_wants_to_leave_leaves() {
        let key = |code, modifiers| is_end(KeyEvent::new(code, modifiers));
        assert!(key(KeyCode::Char('q'), KeyModifiers::NONE) && key(KeyCode::Esc, KeyModifiers::NONE));
        assert!(key(KeyCode::Char('c'), KeyModifiers::CONTROL) && !key(KeyCode::Char('c'), KeyModifiers::NONE));
    }
}
