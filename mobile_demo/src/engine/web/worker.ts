/**
 * The web engine's worker. LiteRT.js wants a classic worker in the folder of its .wasm files, so scripts/workers.mjs
 * bundles this one for public/engine/.
 */
import { getGlobalLiteRt, loadAndCompile, loadLiteRt } from '@litertjs/core';

import type { Answer, Numbered, Request } from './messages';
import { argmax, ContextFull, LiteRTRunner } from './runner';

let runner: LiteRTRunner | null = null;
const stopped = new Set<number>();
let queue: Promise<void> = Promise.resolve(); // one request after another: there is one cache

const channel = new MessageChannel();
/** Lets waiting messages in, such as `stop`; a timer would cost 4 ms each time. */
const pause = () =>
  new Promise<void>((resolve) => {
    channel.port1.onmessage = () => resolve();
    channel.port2.postMessage(null);
  });

class Stopped extends Error {}

declare function importScripts(path: string): void;

// Emscripten starts its threads from the address of the script that loaded it, which is this one
if (self.name === 'em-pthread') importScripts('litert_wasm_threaded_internal.js');
else self.onmessage = listen;

function listen(event: MessageEvent<Numbered<Request>>): void {
  const request = event.data;
  if (request.kind === 'stop') stopped.add(request.of);
  else queue = queue.then(() => handle(request)).catch((error: unknown) => answer(request.id, failure(error)));
}

async function handle(request: Numbered<Request>): Promise<void> {
  if (request.kind === 'load') await load(request.path, request.threads);
  else if (request.kind === 'generate') await generate(request.id, request.ids, request.stopIds, request.limit);
  else if (request.kind === 'logits') {
    current().reset();
    answer(request.id, { kind: 'done', logits: await current().feed(request.ids), memoryBytes: memoryBytes() });
    return;
  }
  answer(request.id, { kind: 'done', memoryBytes: memoryBytes() });
}

async function load(path: string, threads: number): Promise<void> {
  // threads need shared memory, which a page has only when it is cross-origin isolated (COOP and COEP headers)
  const threaded = self.crossOriginIsolated && threads > 1;
  await loadLiteRt(new URL('.', self.location.href).href, { threads: threaded });
  const model = await loadAndCompile(await bytesOf(path), { accelerator: 'wasm', cpuOptions: { numThreads: threads } });
  runner = new LiteRTRunner(model);
}

/** A file of the origin private file system. */
async function bytesOf(path: string): Promise<Uint8Array> {
  const parts = path.split('/');
  let directory = await navigator.storage.getDirectory();
  for (const part of parts.slice(0, -1)) directory = await directory.getDirectoryHandle(part);
  const file = await (await directory.getFileHandle(parts[parts.length - 1] ?? '')).getFile();
  return new Uint8Array(await file.arrayBuffer());
}

async function generate(id: number, ids: readonly number[], stopIds: readonly number[], limit: number): Promise<void> {
  const stops = new Set(stopIds);
  const breathe = async () => {
    await pause();
    if (stopped.has(id)) throw new Stopped();
  };
  try {
    current().reset();
    let token = argmax(await current().feed(ids, breathe));
    for (let count = 0; count < limit && !stops.has(token); count++) {
      answer(id, { kind: 'token', token });
      await breathe();
      if (count + 1 < limit) token = argmax(await current().feed([token]));
    }
  } catch (error) {
    // where the context is full, the answer ends; a prompt that does not fit at all is an error
    if (!(error instanceof Stopped) && !(error instanceof ContextFull && ids.length <= current().contextTokens)) throw error;
  } finally {
    stopped.delete(id);
  }
}

function current(): LiteRTRunner {
  if (!runner) throw new Error('no model is loaded');
  return runner;
}

function memoryBytes(): number {
  return getGlobalLiteRt().liteRtWasm.HEAPU8.length;
}

function failure(error: unknown): Answer {
  const detail = error instanceof Error ? error.message : String(error);
  if (error instanceof ContextFull) return { kind: 'failed', code: 'tooLong', detail };
  const memory = /memory|allocat|Array buffer/i.test(detail);
  return { kind: 'failed', code: memory ? 'memory' : 'engine', detail };
}

function answer(id: number, message: Answer): void {
  self.postMessage({ ...message, id });
}
