/**
 * One file of a package onto the device.
 *
 * Bytes are appended in place and survive a crash; a `.partial` file beside them remembers the ETag. They are continued
 * only when the server honours Range and the ETag is unchanged, and the file counts only when its digest matches.
 */
import { sha256 } from '@noble/hashes/sha2.js';

import { concat, fromUtf8, hex, utf8 } from '../bytes';
import { AppError, checkAbort } from '../errors';
import type { FileEntry } from './manifest';
import type { Opened, Origin } from './origin';
import type { Storage } from './storage';

const APPEND_BYTES = 1 << 20; // appended at once: few enough system calls, little enough to lose
const READ_BYTES = 4 << 20;

export interface Job {
  readonly origin: Origin;
  readonly storage: Storage;
  /** Directory of the package in the storage. */
  readonly home: string;
  readonly signal?: AbortSignal;
  /** Told how many bytes of this file lie on the device. */
  readonly onBytes?: (bytes: number) => void;
}

/** Raises AppError `network`, `tampered`, `space` or `aborted`; what has arrived stays for the next attempt. */
export async function downloadFile(job: Job, entry: FileEntry): Promise<void> {
  const path = `${job.home}/${entry.path}`;
  const present = (await job.storage.size(path)) ?? 0;
  if (present === entry.size_bytes && (await storedDigest(job, path)) === entry.sha256) {
    await job.storage.remove(`${path}.partial`);
    job.onBytes?.(present);
    return;
  }
  const etag = present > 0 && present < entry.size_bytes ? await rememberedEtag(job.storage, path) : null;
  const continued = await transfer(job, entry, path, etag === null ? 0 : present, etag);
  if (await matches(job, entry, path, continued.digest)) return;
  if (continued.from > 0) {
    // the beginning may have been damaged on the device: once more, from zero
    const again = await transfer(job, entry, path, 0, null);
    if (await matches(job, entry, path, again.digest)) return;
  }
  throw new AppError('tampered', `${entry.path} is not what kobako.json says it is`);
}

/** SHA-256 of a stored file. */
export async function storedDigest(job: Pick<Job, 'storage' | 'signal'>, path: string): Promise<string> {
  if (job.storage.digest) return job.storage.digest(path);
  const hash = sha256.create();
  const size = (await job.storage.size(path)) ?? 0;
  for (let at = 0; at < size; at += READ_BYTES) {
    checkAbort(job.signal);
    hash.update(await job.storage.read(path, at, Math.min(size, at + READ_BYTES)));
  }
  return hex(hash.digest());
}

async function matches(job: Job, entry: FileEntry, path: string, digest: string): Promise<boolean> {
  if (digest === entry.sha256) {
    await job.storage.remove(`${path}.partial`);
    return true;
  }
  await job.storage.remove(path);
  await job.storage.remove(`${path}.partial`);
  return false;
}

async function transfer(job: Job, entry: FileEntry, path: string, from: number, etag: string | null) {
  const opened = await job.origin.open(entry.path, from, etag, job.signal);
  if (opened === null) throw new AppError('network', `${entry.path} is not there`);
  const hash = sha256.create();
  if (opened.from === 0) {
    await job.storage.remove(path);
    const remembered = JSON.stringify({ etag: opened.etag });
    await job.storage.write(`${path}.partial`, utf8(remembered));
  } else {
    for (let at = 0; at < opened.from; at += READ_BYTES) {
      hash.update(await job.storage.read(path, at, Math.min(opened.from, at + READ_BYTES)));
    }
  }
  await appendAll(job, entry, path, opened, hash);
  return { from: opened.from, digest: hex(hash.digest()) };
}

async function appendAll(job: Job, entry: FileEntry, path: string, opened: Opened, hash: { update(b: Uint8Array): unknown }) {
  let stored = opened.from;
  let waiting: Uint8Array[] = [];
  let waitingBytes = 0;
  const flush = async () => {
    if (waitingBytes === 0) return;
    const block = concat(waiting);
    await job.storage.append(path, block);
    hash.update(block);
    stored += block.length;
    waiting = [];
    waitingBytes = 0;
    job.onBytes?.(stored);
  };
  try {
    for await (const chunk of opened.chunks) {
      if (stored + waitingBytes + chunk.length > entry.size_bytes) {
        throw new AppError('tampered', `${entry.path} is longer than kobako.json says`);
      }
      waiting.push(chunk);
      waitingBytes += chunk.length;
      if (waitingBytes >= APPEND_BYTES) await flush();
      checkAbort(job.signal);
    }
  } finally {
    await flush();
  }
  if (stored < entry.size_bytes) throw new AppError('network', `${entry.path} ended after ${stored} bytes`);
  if (entry.size_bytes === 0) await job.storage.write(path, new Uint8Array());
}

async function rememberedEtag(storage: Storage, path: string): Promise<string | null> {
  if ((await storage.size(`${path}.partial`)) === null) return null;
  try {
    const remembered = JSON.parse(fromUtf8(await storage.read(`${path}.partial`)));
    return typeof remembered.etag === 'string' ? remembered.etag : null;
  } catch {
    return null;
  }
}
