//! Archives as real tars write them, hostile ones, and any bytes at all.

use proptest::prelude::*;

use super::*;

fn set(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A header block with a right checksum.
fn header(name: &[u8], kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    set(&mut block, 0, name);
    set(&mut block, 100, b"0000640\0");
    set(&mut block, 124, format!("{size:011o}\0").as_bytes());
    block[156] = kind;
    set(&mut block, 257, b"ustar\x0000");
    sealed(block)
}

fn sealed(mut block: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&block).unwrap();
    set(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(bytes.len().next_multiple_of(BLOCK), 0);
    out
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

fn listed(bytes: &[u8]) -> (Vec<Entry>, Standing) {
    let (mut lister, mut found) = (Lister::default(), Vec::new());
    lister.push(bytes, &mut found);
    assert_eq!(lister.found(), found.len() as u64);
    (found, lister.standing())
}

fn lines(bytes: &[u8]) -> Vec<String> {
    listed(bytes).0.iter().map(ToString::to_string).collect()
}

#[test]
fn files_folders_and_links_are_listed_with_size_and_mode() {
    let mut link = header(b"d/link", b'2', 0);
    set(&mut link, 157, b"../../etc/passwd");
    let archive = [header(b"d/", b'5', 0), header(b"d/a", b'0', 3), padded(b"abc"), sealed(link), end()].concat();
    let (found, standing) = listed(&archive);
    assert_eq!(standing, Standing::Ended);
    assert_eq!(
        found.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "drw-r-----            0 d/",
            "-rw-r-----            3 d/a",
            "lrw-r-----            0 d/link -> ../../etc/passwd"
        ]
    );
    assert_eq!(found.iter().map(Entry::leads_out).collect::<Vec<_>>(), [false, false, true]);
}

#[test]
fn long_names_are_read_in_the_gnu_and_the_pax_form() {
    let long = "x".repeat(300);
    let gnu = [header(b"././@LongLink", b'L', 301), padded(format!("{long}\0").as_bytes()), header(b"x", b'0', 0)];
    assert_eq!(listed(&gnu.concat()).0[0].path, long.as_bytes());
    let records = format!("310 path={long}\n21 mtime=1.123456789\n16 size=0000512\n");
    assert_eq!(records.find("\n21"), Some(309));
    let pax = [header(b"PaxHeaders/x", b'x', records.len() as u64), padded(records.as_bytes()), header(b"x", b'0', 0)];
    let after = [pax.concat(), vec![b'c'; 512], header(b"y", b'0', 0), end()].concat();
    let (found, standing) = listed(&after);
    assert_eq!((found[0].path.len(), found[0].size, standing), (300, 512, Standing::Ended));
    assert_eq!(found[1].path, b"y");
}

#[test]
fn a_prefix_and_a_binary_size_are_read() {
    let mut block = header(b"name", b'0', 0);
    set(&mut block, 345, b"far/away");
    set(&mut block, 124, &[0x80, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1]);
    let (found, standing) = listed(&sealed(block));
    assert_eq!((found[0].path_text().as_str(), found[0].size), ("far/away/name", (3 << 32) + 1));
    assert_eq!(standing, Standing::Reading, "the content is still to come");
}

#[test]
fn hostile_names_are_shown_and_not_obeyed() {
    let archive = [header(b"/a\x1b]52;c;x\x07\n\xff\xe2\x80\xaegpj.exe", b'0', 0), end()].concat();
    assert_eq!(lines(&archive), [r"-rw-r-----            0 /a\u{1b}]52;c;x\u{7}\n\xff\u{202e}gpj.exe"]);
    assert!(listed(&archive).0[0].leads_out());
}

#[test]
fn other_streams_and_damage_are_told_apart() {
    assert_eq!(listed(b"").1, Standing::Empty);
    assert_eq!(listed(&[b'x'; 600]).1, Standing::Other);
    assert_eq!(listed(&end()).1, Standing::Other);
    let cut = [header(b"a", b'0', 512), vec![0; 512], vec![b'x'; 512]].concat();
    assert_eq!(listed(&cut).1, Standing::Broken("a header has a wrong checksum"));
    let endless = header(b"a", b'x', LONGEST_EXTENSION + 1);
    assert_eq!(listed(&endless).1, Standing::Broken("an extended header is too long"));
}

proptest! {
    #[test]
    fn any_chunking_lists_the_same(
        sizes in prop::collection::vec(0u64..2000, 1..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        flip in prop::option::of(any::<(prop::sample::Index, u8)>()),
    ) {
        let mut archive: Vec<u8> = Vec::new();
        for size in sizes {
            archive.extend(header(format!("f{size}").as_bytes(), b'0', size));
            archive.extend(padded(&vec![7; size as usize]));
        }
        archive.extend(end());
        if let Some((at, byte)) = flip {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(archive.len() + 1)).chain([0, archive.len()]).collect();
        at.sort_unstable();
        let (mut lister, mut found) = (Lister::default(), Vec::new());
        for pair in at.windows(2) {
            lister.push(&archive[pair[0]..pair[1]], &mut found);
        }
        prop_assert_eq!((found, lister.standing()), listed(&archive));
    }

    #[test]
    fn headers_of_any_bytes_never_panic(mut block in prop::collection::vec(any::<u8>(), BLOCK), kind in prop::sample::select(b"0125xgLKS\0".to_vec()), rest in prop::collection::vec(any::<u8>(), 0..3000)) {
        block[156] = kind;
        let bytes = [sealed(block), rest].concat();
        let _seen = listed(&bytes);
    }
}
