//! Columns for people.

/// Aligns the columns; two spaces between, none at the end of a line. Control
/// characters of strangers' texts are taken out.
pub(crate) fn render(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|&title| title.to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.iter().map(|cell| clean(cell)).collect())
        .collect();
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..head.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &lines {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The beginning of a text, at most `most` characters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

fn clean(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = vec![
            vec!["a".into(), "long value".into(), "x".into()],
            vec!["bbbb".into(), String::new(), "y\u{1b}".into()],
        ];
        let expected = "ID    NAME        Z\na     long value  x\nbbbb              y\n";
        assert_eq!(render(&["ID", "NAME", "Z"], &rows), expected);
        assert_eq!(render(&["ID"], &[]), "ID\n");
    }

    #[test]
    fn long_texts_are_cut() {
        for (text, expected) in [
            ("abc", "abc"),
            ("abcd", "abcd"),
            ("abcde", "abc…"),
            ("äöüßé", "äöü…"),
        ] {
            assert_eq!(cut(text, 4), expected);
        }
    }
}
