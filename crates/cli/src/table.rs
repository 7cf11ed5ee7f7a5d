//! A table in a terminal, drawn as etcd's tools draw theirs: headings in capitals and centred, cells to the
//! right. Not here: what stands in it.

/// The table with these headings and rows. A row may be shorter than the headings.
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|h| h.to_uppercase()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let cells = cells.flat_map(|cell| cell.lines()).map(columns).max().unwrap_or(0);
        cells.max(columns(&headings[column]))
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut out = line('┌', '┬', '┐', &widths);
    out.push_str(&cells(&headings, &widths, centred));
    out.push_str(&line('├', '┼', '┤', &widths));
    for row in rows {
        let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(1).max(1);
        for at in 0..height {
            let part: Vec<String> =
                row.iter().map(|cell| cell.lines().nth(at).unwrap_or("").to_owned()).collect();
            out.push_str(&cells(&part, &widths, to_the_right));
        }
    }
    out.push_str(&line('└', '┴', '┘', &widths));
    out
}

/// How many columns of a terminal a text takes; every character that etcd's tables show takes one.
fn columns(text: &str) -> usize {
    text.chars().count()
}

fn line(left: char, middle: char, right: char, widths: &[usize]) -> String {
    let bars: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
    format!("{left}{}{right}\n", bars.join(&middle.to_string()))
}

fn cells(row: &[String], widths: &[usize], place: fn(&str, usize) -> String) -> String {
    let cell = |(at, width): (usize, &usize)| {
        let text = row.get(at).map(String::as_str).unwrap_or_default();
        format!(" {} ", place(text, *width))
    };
    let cells: Vec<String> = widths.iter().enumerate().map(cell).collect();
    format!("│{}│\n", cells.join("│"))
}

fn centred(text: &str, width: usize) -> String {
    let spare = width.saturating_sub(columns(text));
    format!("{}{text}{}", " ".repeat(spare / 2), " ".repeat(spare - spare / 2))
}

fn to_the_right(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(columns(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_as_etcds_tools_draw_it() {
        let rows = [vec!["58f6aaf9".to_owned(), "2".to_owned(), "20 kB".to_owned()]];
        let want = "\
┌──────────┬──────────┬────────────┐
│   HASH   │ REVISION │ TOTAL SIZE │
├──────────┼──────────┼────────────┤
│ 58f6aaf9 │        2 │      20 kB │
└──────────┴──────────┴────────────┘
";
        assert_eq!(table(&["hash", "revision", "total size"], &rows), want);
    }
}
