//! What a start does: looks at every segment, tells and keeps aside what is damaged, and copies the last one.
//!
//! Every step replaces one file by another that is synced, so a start may be cut short anywhere and begun again. A
//! place where records are missing is filled with a run of lost ones: positions never shift, and the next start does
//! not find the same damage again.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::footer::Trailer;
use super::format::{Hash, MIN_FRAME, SEGMENT_HEADER, SegmentHeader, TRAILER, UNKNOWN, known};
use super::group::GroupWriter;
use super::rewrite::{fill_up, found_damage, keep_all, segment_of};
use super::scan::{Expected, Scan, salvage_header, scan};
use super::shelf::{Active, Place, Segment, Shelf, State, read_file, read_footer};
use super::transcript::{Failed, Transcript, parse_name, segment_name};
use super::{Damage, Digest, Fault, OpenError, Options, Position, Recovered, aside, disk};

/// The file that says whose segments these are.
const IDENTITY: &str = "identity";

/// A segment file as it was found.
struct Found {
    first: u64,
    path: PathBuf,
    header: Option<SegmentHeader>,
    bytes: u64,
    footer: Option<Trailer>,
}

struct Start<'a> {
    store: &'a Path,
    folder: PathBuf,
    options: Options,
    store_id: [u8; 16],
    damage: Vec<Damage>,
    sealed: Vec<Arc<Segment>>,
    next: u64,
    chain: Hash,
}

/// Opens the journal of the store in `store`.
pub fn open(store: &Path, options: Options) -> Result<(Shelf, GroupWriter, Recovered), OpenError> {
    let folder = store.join("journal");
    disk::make_folder(&folder).map_err(at("making", &folder))?;
    let mut start = Start {
        store,
        folder,
        options,
        store_id: [0; 16],
        damage: Vec::new(),
        sealed: Vec::new(),
        next: 1,
        chain: UNKNOWN,
    };
    let files = start.list()?;
    start.store_id = start.identity(&files)?;
    let mut files = start.without_foreign(files)?;
    let last = files.pop();
    let mut rest = files.into_iter().peekable();
    while let Some(file) = rest.next() {
        let successor = rest.peek().or(last.as_ref()).map_or(u64::MAX, |next| next.first);
        start.sealed(&file, successor)?;
    }
    let (active, writer, torn_bytes) = start.last(last)?;
    let head = Position(writer.next() - 1);
    let recovered = Recovered {
        store_id: start.store_id,
        head,
        chain: Digest(writer.chain()),
        damage: start.damage,
        damage_total: aside::count(store),
        torn_bytes,
    };
    let state = State { sealed: start.sealed, active };
    let shelf = Shelf::new(store.to_owned(), start.store_id, start.folder, state, head.0);
    Ok((shelf, writer, recovered))
}

/// The store's identity as its file says it, if it does.
pub fn noted_identity(folder: &Path) -> Option<[u8; 16]> {
    let text = fs::read_to_string(folder.join(IDENTITY)).ok()?;
    uuid::Uuid::try_parse(text.trim()).ok().map(uuid::Uuid::into_bytes)
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> OpenError + 'a {
    move |source| OpenError { what, path: path.to_owned(), source }
}

fn writing<'a>(path: &'a Path) -> impl Fn(Failed) -> OpenError + 'a {
    move |failed| match failed {
        Failed::Write(source) => OpenError { what: "writing a segment in", path: path.to_owned(), source },
        Failed::Sync(source) => OpenError { what: "syncing a segment in", path: path.to_owned(), source },
    }
}

impl Start<'_> {
    /// The store's identity: what the file of that name says if any segment bears it, else what most segments bear.
    /// One lost file must not make a foreign segment the measure.
    fn identity(&self, files: &[Found]) -> Result<[u8; 16], OpenError> {
        let path = self.folder.join(IDENTITY);
        let noted = noted_identity(&self.folder);
        let borne: Vec<[u8; 16]> = files.iter().filter_map(|file| Some(file.header?.store_id)).collect();
        let most = || borne.iter().max_by_key(|id| borne.iter().filter(|other| other == id).count()).copied();
        let id = match noted.filter(|id| borne.is_empty() || borne.contains(id)).or_else(most) {
            Some(id) => id,
            None => disk::random().map_err(at("asking for random bytes for", &path))?,
        };
        if noted != Some(id) {
            let text = uuid::Uuid::from_bytes(id).simple().to_string();
            disk::replace(&path, text.as_bytes()).map_err(at("writing", &path))?;
        }
        Ok(id)
    }

    /// The segments by name, without the temporary files of a start or a rewrite that was cut short.
    fn list(&self) -> Result<Vec<Found>, OpenError> {
        let fail = at("listing", &self.folder);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(&fail)? {
            let path = entry.map_err(&fail)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".tmp") {
                fs::remove_file(&path).map_err(at("removing", &path))?;
            }
            if let Some(first) = parse_name(&name) {
                files.push(look(first, &path).map_err(at("reading", &path))?);
            }
        }
        files.sort_by_key(|file| file.first);
        Ok(files)
    }

    fn tell(&mut self, file: &Path, offset: u64, length: u64, what: Fault) -> Damage {
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let damage = Damage { file, offset, length, what };
        // A segment that is verified is looked at twice.
        if !self.damage.contains(&damage) {
            self.damage.push(damage.clone());
        }
        damage
    }

    /// Moves segments aside that belong to another store or stand under another's name.
    fn without_foreign(&mut self, files: Vec<Found>) -> Result<Vec<Found>, OpenError> {
        let mut ours = Vec::with_capacity(files.len());
        for file in files {
            let foreign =
                file.header.is_some_and(|header| header.store_id != self.store_id || header.first != file.first);
            if foreign || file.first == 0 {
                let damage = self.tell(&file.path, 0, file.bytes, Fault::Foreign);
                aside::move_segment(self.store, &damage, &file.path).map_err(at("moving aside", &file.path))?;
            } else {
                ours.push(file);
            }
        }
        Ok(ours)
    }

    /// Takes a segment that has a successor.
    fn sealed(&mut self, file: &Found, successor: u64) -> Result<(), OpenError> {
        if let (Some(header), Some(trailer)) = (file.header, file.footer)
            && trailer.last + 1 == successor
            && header.first == self.next
            && !self.options.verify
        {
            self.compare(&file.path, Some(header.chain))?;
            self.sealed.push(Arc::new(Segment {
                generation: self.sealed.len() as u64,
                path: file.path.clone(),
                mark: header.mark,
                first: header.first,
                last: trailer.last,
                chain: trailer.chain,
                records: u64::from(trailer.records),
                bytes: file.bytes,
                end: file.bytes - u64::from(trailer.length),
                tables: Place::Footer(trailer.offsets),
            }));
            self.next = successor;
            self.chain = trailer.chain;
            return Ok(());
        }
        let bytes = read_file(&file.path).map_err(at("reading", &file.path))?;
        let Some(expected) = self.expected(file, &bytes, Some(successor))? else { return Ok(()) };
        let (scan, before) = self.scan(file, &bytes, &expected)?;
        let mut damage = found_damage(&name(&file.path), &scan);
        let intact = file.header.is_some() && file.footer.is_some();
        if intact && damage.is_empty() && scan.next == successor {
            // Only looked at because that was asked for.
            let verify = std::mem::replace(&mut self.options.verify, false);
            self.sealed(file, successor)?;
            self.options.verify = verify;
            return Ok(());
        }
        if file.footer.is_some_and(|trailer| trailer.last >= successor) {
            let (offset, length) = (scan.torn.start as u64, scan.torn.len() as u64);
            damage.push(Damage { file: name(&file.path), offset, length, what: Fault::Overlap });
        }
        if scan.next < successor && damage.is_empty() {
            damage.push(Damage {
                file: name(&file.path),
                offset: bytes.len() as u64,
                length: successor - scan.next,
                what: Fault::Missing,
            });
        }
        keep_all(self.store, &damage, &bytes).map_err(at("keeping aside damage of", &file.path))?;
        self.damage.append(&mut damage);
        let mut made = self.begin(expected.first, before)?;
        let fail = writing(&file.path);
        scan.frames.iter().try_for_each(|frame| made.push(frame)).map_err(&fail)?;
        fill_up(&mut made, successor, UNKNOWN).map_err(&fail)?;
        self.finish(made)
    }

    /// Takes the last segment: copies what is whole into a new file that takes its name.
    fn last(&mut self, file: Option<Found>) -> Result<(Active, GroupWriter, u64), OpenError> {
        let folder = self.folder.clone();
        let fail = writing(&folder);
        let mut torn = 0;
        let mut made = None;
        if let Some(file) = file {
            if file.header.is_some() && file.footer.is_some() {
                // A segment is sealed only after its successor stands. How many records that held nobody knows:
                // their positions are not given away again.
                let trailer = file.footer.map_or(0, |trailer| trailer.last);
                self.sealed(&file, trailer + 1)?;
                let lost = self.options.segment_bytes / MIN_FRAME as u64;
                self.missing(self.next + lost)?;
            } else {
                let bytes = read_file(&file.path).map_err(at("reading", &file.path))?;
                if let Some(expected) = self.expected(&file, &bytes, None)? {
                    let (scan, before) = self.scan(&file, &bytes, &expected)?;
                    let mut damage = found_damage(&name(&file.path), &scan);
                    keep_all(self.store, &damage, &bytes).map_err(at("keeping aside damage of", &file.path))?;
                    self.damage.append(&mut damage);
                    torn = scan.torn.len() as u64;
                    let mut copy = self.begin(expected.first, before)?;
                    scan.frames.iter().try_for_each(|frame| copy.push(frame)).map_err(&fail)?;
                    copy.finish_open().map_err(&fail)?;
                    made = Some(copy);
                } else {
                    self.missing(file.first.max(self.next) + file.bytes / MIN_FRAME as u64)?;
                }
            }
        }
        let mut made = match made {
            Some(made) => made,
            None => self.begin(self.next, self.chain)?,
        };
        made.sync().map_err(&fail)?;
        let path = made.install(&folder).map_err(&fail)?;
        let file = Arc::new(made.handle().map_err(&fail)?);
        let active = Active {
            path,
            file,
            mark: made.header.mark,
            first: made.header.first,
            end: made.end,
            tables: std::mem::take(&mut made.tables),
        };
        let empty = GroupWriter::new(&made.header);
        Ok((active, std::mem::replace(&mut made.writer, empty), torn))
    }

    /// What is known of a segment that has to be scanned; `None` if it tells nothing and was moved aside.
    fn expected(&mut self, file: &Found, bytes: &[u8], successor: Option<u64>) -> Result<Option<Expected>, OpenError> {
        if let Some(header) = file.header {
            let (mark, first, chain) = (header.mark, header.first, Some(header.chain));
            return Ok(Some(Expected { mark, first, chain, successor }));
        }
        match salvage_header(bytes).filter(|expected| expected.first == file.first) {
            Some(expected) => {
                let damage = self.tell(&file.path, 0, SEGMENT_HEADER as u64, Fault::Header);
                keep_all(self.store, std::slice::from_ref(&damage), bytes)
                    .map_err(at("keeping aside damage of", &file.path))?;
                Ok(Some(Expected { successor, ..expected }))
            }
            None => {
                let damage = self.tell(&file.path, 0, file.bytes, Fault::Unreadable);
                aside::move_segment(self.store, &damage, &file.path).map_err(at("moving aside", &file.path))?;
                Ok(None)
            }
        }
    }

    /// Reads a segment, and which head it goes on from.
    fn scan<'b>(&mut self, file: &Found, bytes: &'b [u8], expected: &Expected) -> Result<(Scan<'b>, Hash), OpenError> {
        self.fill_gap(expected.first, expected.chain)?;
        self.compare(&file.path, expected.chain)?;
        // Where the header is lost, or was written when nobody knew the head before it, the first record is held
        // against that head by this start: what is written anew has a header again.
        let chain = expected.chain.and_then(known).unwrap_or(self.chain);
        Ok((scan(bytes, &Expected { chain: known(chain), ..*expected }), chain))
    }

    /// Tells if a segment does not go on from the head before it, where both are known.
    fn compare(&mut self, path: &Path, chain: Option<Hash>) -> Result<(), OpenError> {
        if chain.and_then(known).is_none_or(|chain| known(self.chain).is_none_or(|before| before == chain)) {
            return Ok(());
        }
        let damage = self.tell(path, 0, 0, Fault::Chain);
        aside::keep(self.store, &damage, &[]).map_err(at("noting damage of", path))
    }

    /// Notes that all records before `next` are lost, in a segment of their own.
    fn missing(&mut self, next: u64) -> Result<(), OpenError> {
        self.fill_gap(next, None)
    }

    fn fill_gap(&mut self, next: u64, chain: Option<Hash>) -> Result<(), OpenError> {
        if next <= self.next {
            return Ok(());
        }
        let path = self.folder.join(segment_name(self.next));
        let (offset, length) = (self.next, next - self.next);
        let damage = self.tell(&path, offset, length, Fault::Missing);
        aside::keep(self.store, &damage, &[]).map_err(at("noting damage of", &path))?;
        let mut made = self.begin(self.next, self.chain)?;
        fill_up(&mut made, next, chain.unwrap_or(UNKNOWN)).map_err(writing(&path))?;
        self.finish(made)
    }

    fn begin(&self, first: u64, chain: Hash) -> Result<Transcript, OpenError> {
        Transcript::begin(&self.folder, self.store_id, first, chain, None).map_err(writing(&self.folder))
    }

    /// Seals, syncs and installs a segment, and notes it.
    fn finish(&mut self, mut made: Transcript) -> Result<(), OpenError> {
        let fail = writing(&self.folder);
        let bytes = made.finish_sealed().map_err(&fail)?;
        made.sync().map_err(&fail)?;
        let path = made.install(&self.folder).map_err(&fail)?;
        let segment = segment_of(&made, self.sealed.len() as u64, path, bytes);
        self.next = segment.last + 1;
        self.chain = segment.chain;
        self.sealed.push(Arc::new(segment));
        Ok(())
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads header and footer of a segment file.
fn look(first: u64, path: &Path) -> io::Result<Found> {
    use std::io::Read as _;
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut start = Vec::with_capacity(SEGMENT_HEADER);
    (&file).take(SEGMENT_HEADER as u64).read_to_end(&mut start)?;
    let header = SegmentHeader::decode(&start);
    let footer = match header {
        Some(header) if bytes >= (SEGMENT_HEADER + TRAILER) as u64 => {
            read_footer(&file, bytes, &header.mark, header.first)?.map(|(trailer, _)| trailer)
        }
        _ => None,
    };
    Ok(Found { first, path: path.to_owned(), header, bytes, footer })
}
