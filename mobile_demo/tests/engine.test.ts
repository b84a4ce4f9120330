/** Who may use the one engine, and when it is taken away. */
import type { Engine, EngineInfo, GenerateOptions, Generated } from '../src/engine/types';
import type { Installed } from '../src/packages/library';
import { borrow, unload, unloadIdle } from '../src/state/engine';

const mockLog: string[] = [];

/** Answers when its signal fires, a little later: as an engine that ends in the middle of a token. */
class Slow implements Engine {
  readonly id = 'litertjs';
  private busy = false;
  private name = '';
  load = async (model: { manifest: { name: string } }) => {
    this.name = model.manifest.name;
    mockLog.push(`load ${this.name}`);
  };
  generate = async (_prompt: unknown, { signal }: GenerateOptions): Promise<Generated> => {
    this.busy = true;
    mockLog.push(`begin ${this.name}`);
    await new Promise<void>((resolve) => signal?.addEventListener('abort', () => setTimeout(resolve, 20)));
    this.busy = false;
    mockLog.push(`end ${this.name}`);
    return { text: '', ids: [], promptTokens: 0, generatedTokens: 0 };
  };
  unload = async () => {
    mockLog.push(`unload ${this.name}${this.busy ? ' while it answers' : ''}`);
  };
  stats = () => ({ loadMs: 0, firstTokenMs: 0, tokensPerSecond: 0, memoryBytes: null });
}

const mockCreate: EngineInfo['create'] = async () => new Slow();

jest.mock('../src/engine/index', () => ({
  ENGINES: [{ id: 'litertjs', title: 'slow', target: 'litert', available: () => true, create: () => mockCreate() }],
}));
jest.mock('../src/platform/storage', () => ({ storage: { read: async () => new Uint8Array(), locate: (path: string) => path } }));
jest.mock('../src/platform/device', () => ({ memoryBytes: () => null }));
jest.mock('../src/platform/kv', () => ({ kv: { get: () => null, set: () => undefined } }));
jest.mock('../src/packages/library', () => ({ checkBeforeUse: async () => undefined }));
jest.mock('../src/tasks/tokenizer', () => ({ ShippedTokenizer: class {} }));

const one = (name: string): Installed =>
  ({ manifest: { name, build_id: name, targets: { litert: { needs: { ram_bytes: 1 } } } }, target: 'litert', home: name }) as unknown as Installed;

function answer(name: string) {
  const controller = new AbortController();
  const done = borrow(one(name), controller, ({ engine }) =>
    engine.generate({ messages: [], text: '', ids: [] }, { maxNewTokens: 1, stop: [], signal: controller.signal }),
  );
  return { controller, done: done.then(() => 'done', (error: Error) => error.message) };
}

const soon = () => new Promise((resolve) => setTimeout(resolve, 5));

beforeEach(async () => {
  await unload();
  mockLog.length = 0;
});

test('another package stops an answer, and waits for its end before the engine goes', async () => {
  const first = answer('a');
  await soon();
  const second = answer('b');
  await first.done;
  await soon();
  expect(mockLog).toEqual(['load a', 'begin a', 'end a', 'unload a', 'load b', 'begin b']);
  second.controller.abort();
  await second.done;
});

test('a second answer of the same package waits for the first', async () => {
  const first = answer('a');
  const second = answer('a');
  await soon();
  expect(mockLog).toEqual(['load a', 'begin a']);
  first.controller.abort();
  await first.done;
  await soon();
  expect(mockLog).toEqual(['load a', 'begin a', 'end a', 'begin a']);
  second.controller.abort();
  await second.done;
});

test('who stops while waiting is not kept waiting', async () => {
  const first = answer('a');
  await soon();
  const second = answer('a');
  await soon();
  second.controller.abort();
  expect(await second.done).toBe('aborted: stopped');
  first.controller.abort();
  await first.done;
});

test('the background takes the engine at once, a tab out of sight only when nothing is under way', async () => {
  const first = answer('a');
  await soon();
  await unloadIdle();
  expect(mockLog).toEqual(['load a', 'begin a']);
  await unload();
  await first.done;
  expect(mockLog).toEqual(['load a', 'begin a', 'end a', 'unload a']);
  mockLog.length = 0;
  const again = answer('a');
  await soon();
  again.controller.abort();
  await again.done;
  await unloadIdle();
  expect(mockLog.at(-1)).toBe('unload a');
});
