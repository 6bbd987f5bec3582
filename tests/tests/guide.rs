//! The guide and the other pages for readers: links lead somewhere, every page is listed, programs
//! are compiled, and the front page fits on two screens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use quorate::{Config, FileConfig, TcpConfig};

/// Two screens.
const README_LINES: usize = 120;
const README_COLUMNS: usize = 120;

/// Pages outside of the guide, from the root of the repository.
const OTHER_PAGES: [&str; 4] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the tests look at in a page.
#[derive(Default)]
struct Page {
    /// Where its links lead, as they are written.
    links: Vec<String>,
    /// The anchors of its headings.
    anchors: BTreeSet<String>,
    /// The words behind the fences of its blocks of code, such as `rust,no_run`.
    fences: Vec<String>,
    /// What these blocks hold.
    blocks: Vec<String>,
}

impl Page {
    fn parse(markdown: &str) -> Self {
        let mut page = Self::default();
        let mut heading = None::<String>;
        let mut in_block = false;
        let mut seen = BTreeMap::<String, usize>::new();
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(dest_url.into_string());
                }
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(words))) => {
                    page.fences.push(words.into_string());
                    page.blocks.push(String::new());
                    in_block = true;
                }
                Event::End(TagEnd::CodeBlock) => in_block = false,
                Event::Text(text) if in_block => {
                    page.blocks.last_mut().expect("it has begun").push_str(&text);
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::Text(text) | Event::Code(text) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let times = seen.entry(anchor.clone()).or_default();
                    page.anchors.insert(match *times {
                        0 => anchor,
                        times => format!("{anchor}-{times}"),
                    });
                    *times += 1;
                }
                _ => {}
            }
        }
        page
    }

    /// Whether it has a program that is compiled.
    fn has_programs(&self) -> bool {
        self.fences.iter().any(|words| {
            let mut words = words.split(',').map(str::trim);
            words.next() == Some("rust") && !words.any(|word| word == "ignore")
        })
    }
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// All pages by their paths from the root.
fn pages() -> BTreeMap<PathBuf, Page> {
    let root = root();
    let guide = fs::read_dir(root.join("docs")).expect("the guide");
    let guide = guide.map(|entry| Path::new("docs").join(entry.expect("a name").file_name()));
    let guide = guide.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let paths = guide.chain(OTHER_PAGES.map(PathBuf::from));
    paths.map(|path| (path.clone(), Page::parse(&read(&root.join(&path))))).collect()
}

/// The path without `..`. None where it leads out of the repository.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => normal.pop().then_some(())?,
            Component::Normal(part) => normal.push(part),
            _ => {}
        }
    }
    Some(normal)
}

/// What is wrong with a link on the page at `from`.
fn fault(pages: &BTreeMap<PathBuf, Page>, from: &Path, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    let target = match file {
        "" => from.to_owned(),
        file => {
            let folder = from.parent().unwrap_or(Path::new(""));
            let Some(target) = normal(&folder.join(file)) else {
                return Some("leads out of the repository".to_owned());
            };
            target
        }
    };
    if !root().join(&target).exists() {
        return Some("leads to no file".to_owned());
    }
    let anchor = anchor?;
    match pages.get(&target) {
        Some(page) if page.anchors.contains(anchor) => None,
        Some(_) => Some(format!("leads to no heading of {}", target.display())),
        None => Some("has an anchor in a file that is no page".to_owned()),
    }
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_of_it() {
    let pages = pages();
    let mut faults = Vec::new();
    for (path, page) in &pages {
        for link in &page.links {
            if let Some(fault) = fault(&pages, path, link) {
                faults.push(format!("{}: {link} {fault}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let pages = pages();
    let from = Path::new("docs/architecture.md");
    let leads = |link: &str| fault(&pages, from, link).is_none();
    assert!(
        leads("divergence.md#groups-that-rest")
            && leads("../core/src/lib.rs")
            && leads("#a-node-and-its-groups")
    );
    assert!(leads("https://example.org/nowhere"));
    for link in
        ["nowhere.md", "divergence.md#nowhere", "#nowhere", "../../x", "../core/src/lib.rs#L1"]
    {
        assert!(!leads(link), "{link}");
    }
    assert_eq!(anchor("Beyond `cargo test`: what's there?"), "beyond-cargo-test-whats-there");
}

#[test]
fn every_page_of_the_guide_is_in_its_summary_once() {
    let mut pages = pages();
    let summary = pages.remove(Path::new("docs/SUMMARY.md")).expect("it is a page");
    let mut listed: Vec<_> =
        summary.links.iter().map(|link| Path::new("docs").join(link)).collect();
    listed.sort();
    let guide: Vec<_> = pages.into_keys().filter(|path| path.starts_with("docs")).collect();
    assert_eq!(listed, guide);
}

#[test]
fn every_page_with_programs_is_a_doctest() {
    let lib = read(&root().join("src/lib.rs"));
    for (path, _) in pages().iter().filter(|(_, page)| page.has_programs()) {
        let include = format!("include_str!(\"../{}\")", path.display());
        assert!(
            lib.contains(&include),
            "src/lib.rs has no {include}: its programs are not compiled"
        );
    }
}

#[test]
fn programs_that_others_build_on_are_those_of_their_pages() {
    for (page, program) in [("first-service.md", "stock.rs"), ("plugging-in.md", "counter.rs")] {
        let page = Page::parse(&read(&root().join("docs").join(page)));
        let program = read(&root().join("docs/programs").join(program));
        assert!(page.blocks.contains(&program), "{program}");
    }
}

#[test]
fn the_settings_of_the_guide_can_work() {
    let clusters = Page::parse(&read(&root().join("docs/clusters.md")));
    let file = clusters.blocks.iter().find(|block| block.contains("[raft]")).expect("a file");
    let mut file: toml::Table = toml::from_str(file).expect("TOML");
    let mut section = |name: &str| file.remove(name).expect("a section");
    section("raft").try_into::<Config>().unwrap().validate().unwrap();
    section("tcp").try_into::<TcpConfig>().unwrap().validate().unwrap();
    section("file").try_into::<FileConfig>().unwrap().validate().unwrap();
    section("members").try_into::<Vec<(u64, String)>>().unwrap();
}

#[test]
fn the_front_page_fits_on_two_screens() {
    let readme = read(&root().join("README.md"));
    let lines = readme.lines().count();
    assert!(lines <= README_LINES, "{lines} lines");
    for (number, line) in (1..).zip(readme.lines()) {
        assert!(line.chars().count() <= README_COLUMNS, "line {number} is too long");
    }
}

#[test]
fn pages_that_code_names_are_there() {
    let mut faults = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a name").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                // Neither what is built, nor the inputs of fuzzers, nor what is hidden.
                if name != "target" && name != "corpus" && !name.starts_with('.') {
                    folders.push(path);
                }
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for named in text.split("docs/").skip(1) {
                let is_part = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
                let page = named.split(|c| !is_part(c)).next().unwrap_or_default();
                if page.ends_with(".md")
                    && !page.contains('/')
                    && !root().join("docs").join(page).exists()
                {
                    faults.push(format!("{}: docs/{page}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
