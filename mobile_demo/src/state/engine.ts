/** One engine with one package in it: loaded when a task needs it, changed when another does, given back when asked. */
import { AppError, checkAbort } from '../errors';
import { checkMemory, chooseEngine } from '../engine/choose';
import { ENGINES } from '../engine/index';
import type { Engine, EngineInfo, Model } from '../engine/types';
import { checkBeforeUse, type Installed } from '../packages/library';
import { memoryBytes } from '../platform/device';
import { storage } from '../platform/storage';
import { chosenFor, type Doing } from '../tasks/bindings';
import { ShippedTokenizer } from '../tasks/tokenizer';
import { settings } from './settings';
import { createStore } from './store';

export interface Ready {
  readonly engine: Engine;
  readonly info: EngineInfo;
  readonly model: Model;
  readonly installed: Installed;
}

interface State {
  readonly state: 'empty' | 'loading' | 'ready';
  readonly name: string | null;
}

export const engineState = createStore<State>({ state: 'empty', name: null });

let ready: Ready | null = null;
let queue: Promise<unknown> = Promise.resolve();
const working = new Map<AbortController, Promise<unknown>>();

/** Loading and unloading happen one after another, whoever asks. */
function inTurn<T>(action: () => Promise<T>): Promise<T> {
  const result = queue.then(action);
  queue = result.catch(() => undefined);
  return result;
}

/** Which installed package does a task, between these languages. */
export const packageFor = (task: string, installed: readonly Installed[], pair?: { source: string; target: string }): Doing | null =>
  chosenFor(task, installed, settings.get().bindings, pair);

/** The package in its engine. Raises AppError `noEngine`, `memory`, `tampered` or `engine`. */
const load = (one: Installed): Promise<Ready> =>
  inTurn(async () => {
    if (ready && ready.installed.manifest.build_id === one.manifest.build_id && ready.info.target === one.target) return ready;
    await drop();
    const able = ENGINES.filter((info) => info.target === one.target);
    const info = chooseEngine(able, one.manifest, settings.get().engine);
    if (!info) throw new AppError('noEngine', one.target);
    checkMemory(one.manifest, one.target, memoryBytes());
    engineState.set({ state: 'loading', name: one.manifest.name });
    try {
      await checkBeforeUse(storage, one, settings.get().keys);
      const home = `${one.home}/tokenizer`;
      const tokenizer = new ShippedTokenizer(await storage.read(`${home}/tokenizer.json`), await storage.read(`${home}/tokenizer_config.json`));
      const model: Model = { manifest: one.manifest, tokenizer, locate: (path) => storage.locate(`${one.home}/${path}`) };
      const engine = await info.create();
      await engine.load(model);
      ready = { engine, info, model, installed: one };
      engineState.set({ state: 'ready' });
      return ready;
    } catch (error) {
      engineState.set({ state: 'empty', name: null });
      throw error;
    }
  });

/**
 * Load a package and work with it, after what is under way with the same package. Whoever takes the engine away meanwhile
 * (another package, the background, a removal) first fires `controller` and waits until `work` has ended: native engines
 * die when they are freed in the middle of an answer.
 */
export async function borrow<T>(one: Installed, controller: AbortController, work: (ready: Ready) => Promise<T>): Promise<T> {
  let loaded = await load(one);
  while (working.size > 0 && !controller.signal.aborted) {
    await Promise.race([Promise.all(working.values()), fired(controller.signal)]);
    loaded = await load(one);
  }
  checkAbort(controller.signal);
  const done = work(loaded);
  working.set(controller, done.catch(() => undefined));
  try {
    return await done;
  } finally {
    working.delete(controller);
  }
}

const fired = (signal: AbortSignal) => new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));

/** Give the memory back. */
export const unload = (): Promise<void> => inTurn(drop);

/** Give the memory back, unless something is under way. */
export const unloadIdle = (): Promise<void> => inTurn(async () => (working.size === 0 ? drop() : undefined));

/** Unload if this package is the one that is loaded. */
export const forget = (name: string): Promise<void> =>
  inTurn(async () => {
    if (ready?.installed.manifest.name === name) await drop();
  });

async function drop(): Promise<void> {
  for (const controller of working.keys()) controller.abort();
  await Promise.all(working.values());
  const engine = ready?.engine;
  ready = null;
  engineState.set({ state: 'empty', name: null });
  await engine?.unload();
}
