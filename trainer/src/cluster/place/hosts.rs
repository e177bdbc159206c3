//! Owns Slurm's compact lists (`node[001-003,7],gpu5` and `4(x2),3`); never touches the environment.

/// Most hosts, or entries of a list of counts, that are unfolded.
const MAX_ENTRIES: usize = 65_536;

/// Longest list that is read, bytes.
const MAX_BYTES: usize = 1 << 20;

/// Unfolds a host list in order: names separated by commas, with any number of `[1-3,07,012-014]` groups in each.
/// A range keeps the zeros its lower end starts with.
///
/// # Errors
/// A sentence that says what is wrong with the list.
pub fn unfold(list: &str) -> Result<Vec<String>, String> {
    if list.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, at most {MAX_BYTES} are read", list.len()));
    }
    let mut hosts = Vec::new();
    for entry in split_outside_brackets(list)? {
        unfold_entry(entry.trim(), &mut hosts)?;
    }
    Ok(hosts)
}

fn split_outside_brackets(list: &str) -> Result<Vec<&str>, String> {
    let (mut inside, mut start, mut entries) = (false, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        match letter {
            '[' if inside => return Err("a bracket stands inside a bracket".into()),
            ']' if !inside => return Err("a closing bracket has no opening one".into()),
            '[' | ']' => inside = letter == '[',
            ',' if !inside => {
                entries.push(list.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err("a bracket is not closed".into());
    }
    entries.push(list.get(start..).unwrap_or_default());
    Ok(entries)
}

/// One name with its groups: the product of all groups, the last one running fastest.
fn unfold_entry(entry: &str, hosts: &mut Vec<String>) -> Result<(), String> {
    if entry.is_empty() {
        return Err("a name is empty".into());
    }
    let mut names = vec![String::new()];
    let mut rest = entry;
    while let Some((before, after)) = rest.split_once('[') {
        let (group, after) = after.split_once(']').ok_or("a bracket is not closed")?;
        let numbers = unfold_group(group)?;
        if hosts.len() + names.len() * numbers.len() > MAX_ENTRIES {
            return Err(format!("it stands for more than {MAX_ENTRIES} hosts"));
        }
        names = names.iter().flat_map(|n| numbers.iter().map(move |k| format!("{n}{before}{k}"))).collect();
        rest = after;
    }
    hosts.extend(names.into_iter().map(|name| name + rest));
    if hosts.len() > MAX_ENTRIES {
        return Err(format!("it stands for more than {MAX_ENTRIES} hosts"));
    }
    Ok(())
}

fn unfold_group(group: &str) -> Result<Vec<String>, String> {
    let mut numbers = Vec::new();
    for part in group.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(low) || !digits(high) {
            return Err(format!("`{part}` is neither a number nor a range"));
        }
        let parse = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is too large a number"));
        let (first, last, width) = (parse(low)?, parse(high)?, low.len());
        if last < first {
            return Err(format!("the range `{part}` runs backwards"));
        }
        if last - first >= (MAX_ENTRIES - numbers.len().min(MAX_ENTRIES)) as u64 {
            return Err(format!("it stands for more than {MAX_ENTRIES} hosts"));
        }
        numbers.extend((first..=last).map(|n| format!("{n:0width$}")));
    }
    Ok(numbers)
}

/// Unfolds a list of counts, `4(x2),3` to 4, 4, 3.
///
/// # Errors
/// A sentence that says what is wrong with the list.
pub fn unfold_counts(list: &str) -> Result<Vec<usize>, String> {
    let mut counts = Vec::new();
    for part in list.split(',') {
        let wrong = || format!("`{part}` is not a count like 4 or 4(x2)");
        let (count, times) = match part.trim().strip_suffix(')') {
            Some(repeated) => repeated.split_once("(x").ok_or_else(wrong)?,
            None => (part.trim(), "1"),
        };
        let count: usize = count.parse().map_err(|_| wrong())?;
        let times: usize = times.parse().map_err(|_| wrong())?;
        if counts.len().saturating_add(times) > MAX_ENTRIES {
            return Err(format!("it stands for more than {MAX_ENTRIES} hosts"));
        }
        counts.extend(std::iter::repeat_n(count, times));
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_unfold_as_slurm_writes_them() {
        let check = |list: &str, hosts: &[&str]| assert_eq!(unfold(list).unwrap(), hosts, "{list}");
        check("login", &["login"]);
        check("node[001-003,7],gpu5", &["node001", "node002", "node003", "node7", "gpu5"]);
        check("n[8-11]", &["n8", "n9", "n10", "n11"]);
        check("n[08-11]-ib", &["n08-ib", "n09-ib", "n10-ib", "n11-ib"]);
        check("r[1-2]c[01-02]", &["r1c01", "r1c02", "r2c01", "r2c02"]);
        check("a.b.example, c[5]", &["a.b.example", "c5"]);
    }

    #[test]
    fn damaged_lists_are_refused_with_a_reason() {
        let check = |list: &str, reason: &str| {
            let error = unfold(list).unwrap_err();
            assert!(error.contains(reason), "{list}: {error}");
        };
        check("", "name is empty");
        check("a,,b", "name is empty");
        check("a[1-2", "not closed");
        check("a1-2]", "no opening");
        check("a[[1]]", "inside a bracket");
        check("a[]", "neither a number nor a range");
        check("a[1-x]", "neither a number nor a range");
        check("a[3-1]", "runs backwards");
        check("a[0-99999999]", "more than 65536");
        check("a[0-400]b[0-400]", "more than 65536");
        check("a[99999999999999999999999]", "too large");
    }

    #[test]
    fn counts_unfold() {
        assert_eq!(unfold_counts("4(x2),3").unwrap(), [4, 4, 3]);
        assert_eq!(unfold_counts("1").unwrap(), [1]);
        for damaged in ["", "4(x2", "x", "4()", "4(x99999999)"] {
            assert!(unfold_counts(damaged).is_err(), "{damaged}");
        }
    }

    proptest! {
        #[test]
        fn no_list_panics(list in "[a-c0-9\\[\\],() x-]{0,40}") {
            let _ = (unfold(&list), unfold_counts(&list));
        }

        #[test]
        fn a_range_unfolds_to_its_numbers(low in 0_u64..2000, more in 0_u64..300, width in 1_usize..6) {
            let hosts = unfold(&format!("h[{low:0width$}-{}]", low + more)).unwrap();
            prop_assert_eq!(hosts.len() as u64, more + 1);
            for (i, host) in hosts.iter().enumerate() {
                prop_assert_eq!(host, &format!("h{:0width$}", low + i as u64));
            }
        }
    }
}
