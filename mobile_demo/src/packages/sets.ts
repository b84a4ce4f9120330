/** What lies at an address: a package, or a set of them, whose members are then looked at one by one. */
import { digestOf, fromUtf8 } from '../bytes';
import { AppError, asAppError } from '../errors';
import type { TrustedKey } from './keys';
import { inspect, MANIFEST_FILE, type Offer } from './library';
import { isEncoder, MAX_MANIFEST_BYTES, parseManifest, type Manifest } from './manifest';
import { httpOrigin, readSmall, type Fetch, type Origin } from './origin';
import { isInside, MAX_SET_BYTES, parseSet, SET_FILE, type PackageSet, type SetMember } from './settable';
import { checkSignature, checkSigned, MAX_SIGNATURE_BYTES, SIGNATURE_FILE, type SignatureState } from './signature';

/** One package, or the members of a set in its order. */
export interface Found {
  readonly offers: readonly Offer[];
  readonly set: PackageSet | null;
}

/** Raises AppError `network`, `notPackage`, `tooNew` or `tampered`. */
export async function inspectAny(origin: Origin, keys: readonly TrustedKey[], fetch: Fetch, signal?: AbortSignal): Promise<Found> {
  try {
    return { offers: [await inspect(origin, keys, signal)], set: null };
  } catch (error) {
    if (asAppError(error, 'network').code !== 'notPackage') throw error;
    const table = await readSmall(origin, SET_FILE, MAX_SET_BYTES, signal);
    if (table === null) throw error;
    return inspectSet(origin, table, keys, fetch, signal);
  }
}

async function inspectSet(origin: Origin, table: Uint8Array, keys: readonly TrustedKey[], fetch: Fetch, signal?: AbortSignal): Promise<Found> {
  const bundle = await readSmall(origin, SIGNATURE_FILE, MAX_SIGNATURE_BYTES, signal);
  const signature = await checkSignature(bundle, keys);
  checkSigned(signature, SET_FILE, digestOf(table));
  const set = parseSet(table);
  const offers: Offer[] = [];
  for (const member of set.members) {
    const home = isInside(member) ? within(origin, member.where) : await published(member.where, fetch, signal);
    const offer = await inspectMember(home, member, { table, bundle, signature }, keys, signal);
    if (offer) offers.push(offer);
  }
  if (offers.length === 0) throw new AppError('notPackage', `no member of ${set.name} writes text`);
  return { offers, set };
}

interface SetProof {
  readonly table: Uint8Array;
  readonly bundle: Uint8Array | null;
  readonly signature: SignatureState;
}

/**
 * A member is vouched for by its own signature, or by the set's through the digest of its manifest.
 * Null for one that answers with vectors or labels: the others are of use without it.
 */
async function inspectMember(origin: Origin, member: SetMember, set: SetProof, keys: readonly TrustedKey[], signal?: AbortSignal): Promise<Offer | null> {
  const manifestBytes = await readSmall(origin, MANIFEST_FILE, MAX_MANIFEST_BYTES, signal);
  if (manifestBytes === null) throw new AppError('notPackage', `the member ${member.name} has no ${MANIFEST_FILE}`);
  if (digestOf(manifestBytes) !== member.manifest_sha256) {
    throw new AppError('tampered', `the member ${member.name} was changed after the set was made`);
  }
  const signatureBytes = await readSmall(origin, SIGNATURE_FILE, MAX_SIGNATURE_BYTES, signal);
  const own = await checkSignature(signatureBytes, keys);
  checkSigned(own, MANIFEST_FILE, member.manifest_sha256);
  if (isEncoder(manifestBytes)) return null;
  const manifest = parseManifest(manifestBytes);
  if (manifest.name !== member.name) throw new AppError('tampered', `the member ${member.name} is ${manifest.name}`);
  const offer = { origin, manifest, manifestBytes, signatureBytes, signature: own };
  if (own.kind === 'trusted' || set.signature.kind !== 'trusted' || set.bundle === null) return offer;
  const signature = { ...set.signature, files: filesOf(manifest) };
  return { ...offer, signature, vouched: { table: set.table, bundle: set.bundle } };
}

/** Digests as the manifest states them: what the set's signer vouches for through the manifest's own digest. */
const filesOf = (manifest: Manifest): ReadonlyMap<string, string> =>
  new Map([...manifest.files, ...Object.values(manifest.targets).flatMap((one) => one.files)].map((file) => [file.path, file.sha256]));

function within(origin: Origin, folder: string): Origin {
  const below = (path: string) => `${folder}/${path}`;
  return {
    label: origin.label + below(''),
    url: origin.url === null ? null : origin.url + below(''),
    open: (path, from, etag, signal) => origin.open(below(path), from, etag, signal),
  };
}

/** A published package by its address, as `kobako pull` reads it. Raises AppError `notPackage` for a road the app lacks. */
async function published(where: string, fetch: Fetch, signal?: AbortSignal): Promise<Origin> {
  const hub = /^hf:\/\/([\w.-]+\/[\w.-]+?)(?:@([\w./-]+))?$/.exec(where);
  if (hub) return httpOrigin(`https://huggingface.co/${hub[1]}/resolve/${hub[2] ?? 'main'}`, fetch);
  const web = /^(https?:\/\/[^?#]+?)(?:@([0-9a-f]{32}))?\/?$/.exec(where);
  if (!web) throw new AppError('notPackage', `${where} cannot be reached from here`);
  const index = web[2] ? null : await readSmall(httpOrigin(`${web[1]}`, fetch), 'index.json', 16 * MAX_SET_BYTES, signal);
  const version = web[2] ?? newest(index);
  return httpOrigin(`${web[1]}/${version}`, fetch);
}

function newest(index: Uint8Array | null): string {
  try {
    const latest: unknown = index === null ? null : JSON.parse(fromUtf8(index)).latest;
    if (typeof latest === 'string' && /^[0-9a-f]{32}$/.test(latest)) return latest;
  } catch {
    // said below
  }
  throw new AppError('notPackage', 'index.json names no newest version');
}
