/**
 * The packages on this device: looked at, installed, checked, removed.
 *
 * `packages/NAME/` holds the files of one package. `pending.json` in it says what was begun, so that it can go on after
 * a restart; `installed.json` is written last, and only what has it counts.
 */
import { digestOf, fromUtf8, utf8 } from '../bytes';
import { AppError, asAppError } from '../errors';
import { downloadFile, storedDigest } from './download';
import type { TrustedKey } from './keys';
import { filesFor, MAX_MANIFEST_BYTES, parseManifest, totalBytes, type FileEntry, type Manifest } from './manifest';
import { readSmall, type Origin } from './origin';
import { parseSet, SET_FILE } from './settable';
import { checkSignature, checkSigned, MAX_SIGNATURE_BYTES, SIGNATURE_FILE, type SignatureState } from './signature';
import { SPARE_BYTES, type Storage } from './storage';

export const ROOT = 'packages';
export const MANIFEST_FILE = 'kobako.json';
/** Where a package keeps the table of the set that vouches for it; no package has files there. */
const VOUCHED = '.set';

/** A package that was looked at, its signature checked before its manifest was parsed. */
export interface Offer {
  readonly origin: Origin;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly signatureBytes: Uint8Array | null;
  readonly signature: SignatureState;
  /** A set's table and its signature, when they are what vouches for this package. */
  readonly vouched?: { readonly table: Uint8Array; readonly bundle: Uint8Array };
}

/** What one engine takes of a package: a target, without the files that another engine of that target reads. */
export interface Part {
  readonly target: string;
  readonly skip?: RegExp;
}

export interface Installed {
  readonly manifest: Manifest;
  readonly target: string;
  readonly home: string;
  readonly sizeBytes: number;
  readonly origin: string;
  /** Who signed it, or null for one that the user allowed without. */
  readonly signer: string | null;
}

/** An installation that was begun and not finished. */
export interface Pending {
  readonly name: string;
  readonly url: string | null;
  readonly target: string;
  readonly allowUnsigned: boolean;
  readonly storedBytes: number;
  readonly totalBytes: number;
}

interface InstallOptions {
  readonly part: Part;
  readonly allowUnsigned: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (stored: number, total: number) => void;
}

/** Raises AppError `network`, `notPackage`, `tooNew` or `tampered`. */
export async function inspect(origin: Origin, keys: readonly TrustedKey[], signal?: AbortSignal): Promise<Offer> {
  const signatureBytes = await readSmall(origin, SIGNATURE_FILE, MAX_SIGNATURE_BYTES, signal);
  const manifestBytes = await readSmall(origin, MANIFEST_FILE, MAX_MANIFEST_BYTES, signal);
  if (manifestBytes === null) throw new AppError('notPackage', `there is no ${MANIFEST_FILE} at ${origin.label}`);
  const signature = await checkSignature(signatureBytes, keys);
  checkSigned(signature, MANIFEST_FILE, digestOf(manifestBytes));
  return { origin, manifest: parseManifest(manifestBytes), manifestBytes, signatureBytes, signature };
}

/** Raises AppError `unsigned` or `untrusted` unless the signature is trusted or the user allows its absence. */
export function checkTrust(signature: SignatureState, allowUnsigned: boolean): void {
  if (signature.kind === 'trusted' || allowUnsigned) return;
  if (signature.kind === 'unsigned') throw new AppError('unsigned', 'the package carries no signature');
  throw new AppError('untrusted', `signed with a key that is not trusted: ${signature.fingerprint}`);
}

/** Get what is missing, check it all, and count it as installed. Raises AppError; what has arrived stays, except `tampered`. */
export async function install(storage: Storage, offer: Offer, options: InstallOptions): Promise<Installed> {
  const { manifest, signature } = offer;
  const { part, allowUnsigned, signal, onProgress } = options;
  checkTrust(signature, allowUnsigned);
  const files = filesFor(manifest, part.target, part.skip);
  for (const file of files) checkSigned(signature, file.path, file.sha256);
  const home = `${ROOT}/${manifest.name}`;
  await begin(storage, offer, home, options, totalBytes(files));
  await checkSpace(storage, home, files);
  const total = totalBytes(files);
  let done = 0;
  try {
    for (const file of files) {
      const onBytes = (bytes: number) => onProgress?.(done + bytes, total);
      await downloadFile({ origin: offer.origin, storage, home, signal, onBytes }, file);
      done += file.size_bytes;
      onProgress?.(done, total);
    }
  } catch (error) {
    // of a package that lies about its files nothing is kept
    if (asAppError(error, 'network').code === 'tampered') await storage.remove(home);
    throw error;
  }
  const facts = { target: part.target, origin: offer.origin.label, signer: signature.kind === 'trusted' ? signature.signer : null };
  await storage.write(`${home}/installed.json`, utf8(JSON.stringify({ ...facts, files: files.map((file) => file.path) })));
  await storage.remove(`${home}/pending.json`);
  return { manifest, home, sizeBytes: total, ...facts };
}

/** Everything installed; a directory that is not a whole package is passed over. */
export async function installed(storage: Storage): Promise<readonly Installed[]> {
  const found: Installed[] = [];
  for (const name of await storage.list(ROOT)) {
    const home = `${ROOT}/${name}`;
    if ((await storage.size(`${home}/installed.json`)) === null) continue;
    try {
      const { target, origin, signer, files } = await readJson(storage, `${home}/installed.json`);
      const manifest = parseManifest(await storage.read(`${home}/${MANIFEST_FILE}`));
      const entries = entriesOf(manifest, files);
      found.push({ manifest, target, home, sizeBytes: totalBytes(entries), origin, signer });
    } catch (error) {
      console.warn(`${home} is damaged`, asAppError(error, 'notPackage').detail);
    }
  }
  return found;
}

/** What was begun and can go on. */
export async function pending(storage: Storage): Promise<readonly Pending[]> {
  const found: Pending[] = [];
  for (const name of await storage.list(ROOT)) {
    const path = `${ROOT}/${name}/pending.json`;
    if ((await storage.size(path)) === null) continue;
    const facts = await readJson(storage, path);
    let storedBytes = 0;
    for (const file of facts.files as string[]) storedBytes += (await storage.size(`${ROOT}/${name}/${file}`)) ?? 0;
    const { url, target, allowUnsigned, totalBytes: total } = facts;
    found.push({ name, url, target, allowUnsigned, storedBytes, totalBytes: total });
  }
  return found;
}

/** Read every byte again. Raises AppError `tampered` (and the package counts no more) or `aborted`. */
export async function verifyAgain(storage: Storage, one: Installed, keys: readonly TrustedKey[], signal?: AbortSignal) {
  try {
    await checkManifestSignature(storage, one, keys);
    const { files } = await readJson(storage, `${one.home}/installed.json`);
    for (const file of entriesOf(one.manifest, files)) {
      if ((await storedDigest({ storage, signal }, `${one.home}/${file.path}`)) !== file.sha256) {
        throw new AppError('tampered', `${file.path} was changed on this device`);
      }
    }
  } catch (error) {
    const known = asAppError(error, 'tampered');
    if (known.code === 'tampered') await storage.remove(`${one.home}/installed.json`);
    throw known;
  }
}

/** Cheap enough for every use: the signature over the stored manifest, and that every file has its size. */
export async function checkBeforeUse(storage: Storage, one: Installed, keys: readonly TrustedKey[]): Promise<void> {
  await checkManifestSignature(storage, one, keys);
  const { files } = await readJson(storage, `${one.home}/installed.json`);
  for (const file of entriesOf(one.manifest, files)) {
    if ((await storage.size(`${one.home}/${file.path}`)) !== file.size_bytes) {
      throw new AppError('tampered', `${file.path} was changed on this device`);
    }
  }
}

export const removePackage = (storage: Storage, name: string): Promise<void> => storage.remove(`${ROOT}/${name}`);

async function checkManifestSignature(storage: Storage, one: Installed, keys: readonly TrustedKey[]): Promise<void> {
  if (one.signer === null) return;
  const digest = digestOf(await storage.read(`${one.home}/${MANIFEST_FILE}`));
  if ((await storage.size(`${one.home}/${VOUCHED}/${SIGNATURE_FILE}`)) !== null) return checkVouched(storage, one, keys, digest);
  const state = await checkSignature(await storage.read(`${one.home}/${SIGNATURE_FILE}`), keys);
  checkTrust(state, false);
  checkSigned(state, MANIFEST_FILE, digest);
}

/** The signature over the set's table, and in that the digest of this package's manifest. */
async function checkVouched(storage: Storage, one: Installed, keys: readonly TrustedKey[], digest: string): Promise<void> {
  const home = `${one.home}/${VOUCHED}`;
  const state = await checkSignature(await storage.read(`${home}/${SIGNATURE_FILE}`), keys);
  checkTrust(state, false);
  const table = await storage.read(`${home}/${SET_FILE}`);
  checkSigned(state, SET_FILE, digestOf(table));
  const known = parseSet(table).members.some((member) => member.name === one.manifest.name && member.manifest_sha256 === digest);
  if (!known) throw new AppError('tampered', `${MANIFEST_FILE} is not the one of the set`);
}

async function begin(storage: Storage, offer: Offer, home: string, options: InstallOptions, total: number): Promise<void> {
  await storage.remove(`${home}/installed.json`);
  const { part, allowUnsigned } = options;
  const files = filesFor(offer.manifest, part.target, part.skip).map((file) => file.path);
  const facts = { url: offer.origin.url, target: part.target, allowUnsigned, totalBytes: total, files };
  await storage.write(`${home}/pending.json`, utf8(JSON.stringify(facts)));
  await storage.write(`${home}/${MANIFEST_FILE}`, offer.manifestBytes);
  if (offer.signatureBytes) await storage.write(`${home}/${SIGNATURE_FILE}`, offer.signatureBytes);
  else await storage.remove(`${home}/${SIGNATURE_FILE}`);
  await storage.remove(`${home}/${VOUCHED}`);
  if (offer.vouched) {
    await storage.write(`${home}/${VOUCHED}/${SET_FILE}`, offer.vouched.table);
    await storage.write(`${home}/${VOUCHED}/${SIGNATURE_FILE}`, offer.vouched.bundle);
  }
}

async function checkSpace(storage: Storage, home: string, files: readonly FileEntry[]): Promise<void> {
  const free = await storage.freeBytes();
  if (free === null) return;
  let missing = totalBytes(files);
  for (const file of files) missing -= Math.min(file.size_bytes, (await storage.size(`${home}/${file.path}`)) ?? 0);
  if (missing > 0 && missing + SPARE_BYTES > free) throw new AppError('space', `${missing} bytes are needed, ${free} are free`);
}

function entriesOf(manifest: Manifest, paths: readonly string[]): readonly FileEntry[] {
  const all = new Map([...manifest.files, ...Object.values(manifest.targets).flatMap((one) => one.files)].map((f) => [f.path, f]));
  return paths.map((path) => {
    const entry = all.get(path);
    if (!entry) throw new AppError('tampered', `${path} is not a file of the package`);
    return entry;
  });
}

async function readJson(storage: Storage, path: string) {
  return JSON.parse(fromUtf8(await storage.read(path)));
}
