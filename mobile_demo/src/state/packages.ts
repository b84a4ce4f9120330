/** The packages as the interface sees them: offered, on their way, installed. */
import { AppError, asAppError } from '../errors';
import { chooseEngine, checkMemory } from '../engine/choose';
import { ENGINES } from '../engine/index';
import * as library from '../packages/library';
import type { Installed, Offer } from '../packages/library';
import { filesFor, totalBytes } from '../packages/manifest';
import { fileOrigin, httpOrigin, type Origin } from '../packages/origin';
import { fetchBytes, memoryBytes, pickDirectory, resolveAddress } from '../platform/device';
import { keepStorage, storage } from '../platform/storage';
import { forget } from './engine';
import { settings } from './settings';
import { createStore } from './store';

/** One row of the list: a package that can be had, is being had, or was begun. */
export interface Row {
  readonly address: string;
  readonly offer: Offer | null;
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
  const shown = new Set(packages.get().rows.map((row) => row.offer?.manifest.name));
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
    const offer = await library.inspect(origin, settings.get().keys);
    const part = partFor(offer);
    const files = part ? filesFor(offer.manifest, part.target, part.skip) : [];
    const begun = (await library.pending(storage)).find((one) => one.name === offer.manifest.name);
    const stored = begun?.storedBytes ?? 0;
    update(address, { offer, state: begun ? 'paused' : 'offered', stored, total: totalBytes(files) });
  } catch (error) {
    update(address, { offer: null, state: 'offered', error: asAppError(error, 'network') });
  }
}

/** The part of a package that this device's engine takes; null when no engine runs it. */
export const partFor = (offer: Offer): library.Part | null => chooseEngine(ENGINES, offer.manifest, settings.get().engine);

/** Get a package; called again after a pause or a failure it goes on where it was. */
export async function get(address: string, allowUnsigned: boolean): Promise<void> {
  const row = packages.get().rows.find((one) => one.address === address);
  const { offer } = row ?? {};
  if (!offer || running.has(address)) return;
  const controller = new AbortController();
  running.set(address, controller);
  update(address, { state: 'loading', error: null });
  try {
    const part = partFor(offer);
    if (!part) throw new AppError('noEngine', Object.keys(offer.manifest.targets).join(', '));
    if (!offer.manifest.targets[part.target]?.proven) throw new AppError('unproven', offer.manifest.name);
    checkMemory(offer.manifest, part.target, memoryBytes());
    await keepStorage();
    await forget(offer.manifest.name);
    const onProgress = (stored: number, total: number) => update(address, { stored, total });
    await library.install(storage, offer, { part, allowUnsigned, signal: controller.signal, onProgress });
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

export function pause(address: string): void {
  running.get(address)?.abort();
}

export async function remove(name: string): Promise<void> {
  await forget(name);
  await library.removePackage(storage, name);
  for (const row of packages.get().rows) {
    if (row.offer?.manifest.name === name) update(row.address, { state: 'offered', stored: 0, error: null });
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
  const fresh: Row = { address, offer: null, error: null, state: 'looking', stored: 0, total: 0 };
  const known = rows.some((row) => row.address === address);
  const all = known ? rows : [...rows, fresh];
  packages.set({ rows: all.map((row) => (row.address === address ? { ...row, ...change } : row)) });
}
