/** The packages as the interface sees them: offered, on their way, installed. */
import { AppError, asAppError } from '../errors';
import { chooseEngine, checkMemory } from '../engine/choose';
import { ENGINES } from '../engine/index';
import * as library from '../packages/library';
import type { Installed, Offer } from '../packages/library';
import { filesFor, totalBytes } from '../packages/manifest';
import { fileOrigin, httpOrigin, type Origin } from '../packages/origin';
import { inspectAny } from '../packages/sets';
import { bindingsOf, type PackageSet } from '../packages/settable';
import { fetchBytes, memoryBytes, pickDirectory, resolveAddress } from '../platform/device';
import { keepStorage, storage } from '../platform/storage';
import { forget } from './engine';
import { settings } from './settings';
import { createStore } from './store';

/** One row of the list: a package, or a set of them, that can be had, is being had, or was begun. */
export interface Row {
  readonly address: string;
  /** What lies there: one package, or the members of `set`; empty when nothing was found. */
  readonly offers: readonly Offer[];
  readonly set: PackageSet | null;
  readonly error: AppError | null;
  readonly state: 'looking' | 'offered' | 'loading' | 'paused';
  readonly stored: number;
  readonly total: number;
}

interface Packages {
  readonly ready: boolean;
  readonly installed: readonly Installed[];
  readonly rows: readonly Row[];
  readonly freeBytes: number | null;
}

export const packages = createStore<Packages>({ ready: false, installed: [], rows: [], freeBytes: null });

const running = new Map<string, AbortController>();

export async function refresh(): Promise<void> {
  const [installed, freeBytes] = await Promise.all([library.installed(storage), storage.freeBytes()]);
  packages.set({ ready: true, installed, freeBytes });
}

/** Read the device, then look at every address that is known. */
export async function start(): Promise<void> {
  await dropLeftovers();
  await refresh();
  await Promise.all(settings.get().sources.map((address) => look(address)));
}

/** Look at what lies at an address; the row says what was found, or why nothing was. */
export async function look(address: string): Promise<void> {
  if (running.has(address)) return;
  await lookAt(address, originOf(address));
}

export async function addAddress(address: string): Promise<void> {
  const { sources } = settings.get();
  if (!sources.includes(address)) settings.set({ sources: [...sources, address] });
  await look(address);
}

export async function dropAddress(address: string): Promise<void> {
  settings.set({ sources: settings.get().sources.filter((one) => one !== address) });
  packages.set({ rows: packages.get().rows.filter((row) => row.address !== address) });
  await dropLeftovers();
  await refresh();
}

/** What was begun and can never go on, because its address was taken off the list or its folder is no longer open. */
async function dropLeftovers(): Promise<void> {
  const addresses = new Set(settings.get().sources.map((address) => originOf(address).url));
  const shown = new Set(packages.get().rows.flatMap((row) => row.offers.map((offer) => offer.manifest.name)));
  for (const { url, name } of await library.pending(storage)) {
    if (!shown.has(name) && (url === null || !addresses.has(url))) await library.removePackage(storage, name);
  }
}

const originOf = (address: string): Origin => httpOrigin(resolveAddress(address), fetchBytes);

/** A package from a directory the user picks. */
export async function addDirectory(): Promise<void> {
  const picked = await pickDirectory();
  if (picked) await lookAt(picked.name, fileOrigin(picked.name, picked.files));
}

async function lookAt(address: string, origin: Origin): Promise<void> {
  update(address, { state: 'looking', error: null });
  try {
    const { offers, set } = await inspectAny(origin, settings.get().keys, fetchBytes);
    const names = offers.map((offer) => offer.manifest.name);
    const begun = (await library.pending(storage)).filter((one) => names.includes(one.name));
    const stored = begun.reduce((sum, one) => sum + one.storedBytes, 0);
    const total = offers.reduce((sum, offer) => sum + sizeOf(offer), 0);
    update(address, { offers, set, state: begun.length > 0 ? 'paused' : 'offered', stored, total });
  } catch (error) {
    update(address, { offers: [], set: null, state: 'offered', error: asAppError(error, 'network') });
  }
}

/** The part of a package that this device's engine takes; null when no engine runs it. */
export const partFor = (offer: Offer): library.Part | null => chooseEngine(ENGINES, offer.manifest, settings.get().engine);

/** Bytes of what this device would take of a package. */
export function sizeOf(offer: Offer): number {
  const part = partFor(offer);
  return part ? totalBytes(filesFor(offer.manifest, part.target, part.skip)) : 0;
}

/** Get a package, or all members of a set and their tasks; called again after a pause or a failure it goes on where it was. */
export async function get(address: string, allowUnsigned: boolean): Promise<void> {
  const row = packages.get().rows.find((one) => one.address === address);
  if (!row || row.offers.length === 0 || running.has(address)) return;
  const controller = new AbortController();
  running.set(address, controller);
  update(address, { state: 'loading', error: null });
  try {
    const parts = row.offers.map(usablePart); // of a set: all of them, before the first is fetched
    await keepStorage();
    let before = 0;
    for (const [number, offer] of row.offers.entries()) {
      await forget(offer.manifest.name);
      const onProgress = (stored: number) => update(address, { stored: before + stored });
      const part = parts[number] as library.Part;
      before += (await library.install(storage, offer, { part, allowUnsigned, signal: controller.signal, onProgress })).sizeBytes;
    }
    if (row.set) settings.set({ bindings: { ...settings.get().bindings, ...bindingsOf(row.set) } });
    update(address, { state: 'offered', stored: 0 });
  } catch (error) {
    const known = asAppError(error, 'network');
    const gone = known.code === 'tampered' ? { state: 'offered' as const, stored: 0 } : { state: 'paused' as const };
    update(address, { ...gone, error: known.code === 'aborted' ? null : known });
  } finally {
    running.delete(address);
    await refresh();
  }
}

/** Raises AppError `noEngine`, `unproven` or `memory`. */
function usablePart(offer: Offer): library.Part {
  const { manifest } = offer;
  const part = partFor(offer);
  if (!part) throw new AppError('noEngine', Object.keys(manifest.targets).join(', '));
  if (!manifest.targets[part.target]?.proven) throw new AppError('unproven', manifest.name);
  checkMemory(manifest, part.target, memoryBytes());
  return part;
}

export function pause(address: string): void {
  running.get(address)?.abort();
}

export async function remove(name: string): Promise<void> {
  await forget(name);
  await library.removePackage(storage, name);
  for (const row of packages.get().rows) {
    if (row.offers.some((offer) => offer.manifest.name === name)) update(row.address, { state: 'offered', stored: 0, error: null });
  }
  await refresh();
}

/** Read every byte of a package again; one that was changed is no longer installed. */
export async function verify(one: Installed): Promise<AppError | null> {
  try {
    await library.verifyAgain(storage, one, settings.get().keys);
    return null;
  } catch (error) {
    await forget(one.manifest.name);
    return asAppError(error, 'tampered');
  } finally {
    await refresh();
  }
}

function update(address: string, change: Partial<Row>): void {
  const { rows } = packages.get();
  const fresh: Row = { address, offers: [], set: null, error: null, state: 'looking', stored: 0, total: 0 };
  const known = rows.some((row) => row.address === address);
  const all = known ? rows : [...rows, fresh];
  packages.set({ rows: all.map((row) => (row.address === address ? { ...row, ...change } : row)) });
}
