import type { Engine, Generated, GenerateOptions, Model } from '../src/engine/types';
import { collect } from '../src/engine/tokenloop';
import { chooseEngine, checkMemory } from '../src/engine/choose';
import { utf8 } from '../src/bytes';
import type { Task } from '../src/packages/manifest';
import { detect, directions } from '../src/tasks/languages';
import { fill, type Prompt } from '../src/tasks/prompt';
import { summarize, translate } from '../src/tasks/run';
import { pack, sentences, splitPlainly } from '../src/tasks/sentences';
import { StopFilter, TextStream } from '../src/tasks/stream';
import { tinyManifest } from './helpers';

const TEXT = 'The train leaves at six. Dr. Smith is late!\n\nコーヒーをください。駅はどこですか？ Good.';

test('sentences joined are the text again, whichever splitter', () => {
  expect(sentences(TEXT).join('')).toBe(TEXT);
  expect(sentences(TEXT).length).toBeGreaterThanOrEqual(5);
  const plain = TEXT.split(/(?<=\n)/).flatMap(splitPlainly);
  expect(plain.join('')).toBe(TEXT);
  expect(plain).toContain('コーヒーをください。');
});

test('pieces hold whole sentences within the budget, and cut only what is longer', () => {
  const count = (text: string) => text.length;
  const pieces = pack(['one. ', 'two. ', 'three. ', 'x'.repeat(40), '😀'.repeat(20)], 16, count);
  expect(pieces.join('')).toBe(`one. two. three. ${'x'.repeat(40)}${'😀'.repeat(20)}`);
  for (const piece of pieces) {
    expect(count(piece)).toBeLessThanOrEqual(16);
    expect(piece).not.toMatch(/^[\uDC00-\uDFFF]|[\uD800-\uDBFF]$/);
  }
  expect(pieces[0]).toBe('one. two. ');
});

test('a stop string ends the text, also when it comes in parts', () => {
  const filter = new StopFilter(['\n\n', 'END']);
  expect([...'Hello E', 'N', 'X and\n', '\nmore'].map((piece) => filter.push(piece)).join('')).toBe('Hello ENX and');
  expect(filter.stopped).toBe(true);
  expect(filter.push('x') + filter.finish()).toBe('');
  const open = new StopFilter(['END']);
  expect(open.push('the EN') + open.finish()).toBe('the EN');
});

test('a character of several tokens comes out whole', () => {
  const bytes = [...utf8('né 😀')];
  const decode = (ids: readonly number[]) => new TextDecoder().decode(Uint8Array.from(ids));
  const stream = new TextStream(decode);
  const pieces = bytes.map((byte) => stream.push(byte));
  expect(pieces.join('') + stream.finish()).toBe('né 😀');
  expect(pieces.every((piece) => !piece.includes('\uFFFD'))).toBe(true);
});

test('fields are put in literally', () => {
  expect(fill('{target}: {text}', { text: '{target} {text} $&', target: 'French' })).toBe('French: {target} {text} $&');
});

test('a task says what it translates from and into', () => {
  expect(directions({ languages: ['fr'], fills: { fr: {}, de: {} } })).toEqual({ sources: ['en'], targets: ['fr', 'de'] });
  expect(directions({ languages: ['en', 'ja'] })).toEqual({ sources: ['en', 'ja'], targets: ['en', 'ja'] });
});

test.each([
  ['駅はどこですか', 'ja'], ['The cat is on the table', 'en'], ['Le chat est sur la table', 'fr'], ['Der Hund ist nicht da', 'de'], ['где вокзал', 'ru'], ['123', null],
])('%s is %s', (text, code) => {
  expect(detect(text, ['en', 'fr', 'de', 'ja', 'ru'])).toBe(code);
});

/** Repeats the prompt's text in capitals; words count as tokens. */
class Shouter implements Engine {
  readonly id = 'litertjs';
  readonly prompts: string[] = [];
  load = async () => undefined;
  unload = async () => undefined;
  stats = () => ({ loadMs: 0, firstTokenMs: 0, tokensPerSecond: 0, memoryBytes: null });
  async generate(prompt: Prompt, options: GenerateOptions): Promise<Generated> {
    this.prompts.push(prompt.text);
    const text = ` ${prompt.text.replace(/^.*?: /, '').toUpperCase()}`;
    options.onText?.(text);
    return { text, ids: null, promptTokens: 1, generatedTokens: 1 };
  }
}

const words = (text: string) => text.split(/\s+/).filter(Boolean);
const tokenizer = { encode: words, encodePrompt: words } as unknown as Model['tokenizer'];
const task = (change: Partial<Task>): Task => ({ name: 't', messages: [], prompt: 'x: {text}', stop: [], max_new_tokens: 8, languages: [], ...change });
const context = (change: Partial<Task> = {}, contextTokens = 64) => {
  const engine = new Shouter();
  const model: Model = { manifest: tinyManifest({}, { context_tokens: contextTokens }), tokenizer, locate: (path) => path };
  return { engine, model, task: task(change) };
};

test('a translation goes sentence by sentence and keeps the line breaks', async () => {
  const it = context({ prompt: '{source} to {target}: {text}' });
  const said: string[] = [];
  const whole = await translate({ ...it, onText: (piece) => said.push(piece) }, 'One. Two.\n\n  Three.\n', 'en', 'ja');
  expect(whole).toBe('ONE. TWO.\n\n  THREE.\n');
  expect(said.join('')).toBe(whole);
  expect(it.engine.prompts[0]).toBe('English to Japanese: One.');
});

test('a translation uses what the package fills in for the target', async () => {
  const it = context({ prompt: '{examples}{target}: {text}', fills: { fr: { target: 'French', examples: 'E ' } } });
  await translate(it, 'One.', 'en', 'fr');
  expect(it.engine.prompts).toEqual(['E French: One.']);
});

test('a text that fits is summarized in one go, exactly as kobako run does', async () => {
  const it = context();
  await summarize(it, ' A text. It is short. ', 'short');
  expect(it.engine.prompts).toEqual(['x: A text. It is short.']);
});

test('a longer text is summarized in parts, and the parts once more', async () => {
  const it = context();
  const parts: string[] = [];
  await summarize({ ...it, onPart: (part, all) => parts.push(`${part}/${all}`) }, 'One two three four five six. '.repeat(12), 'short').catch(() => undefined);
  expect(parts.length).toBeGreaterThan(2);
  for (const prompt of it.engine.prompts) expect(words(prompt).length + 8).toBeLessThanOrEqual(64);
});

test('a stop in a long text is felt before the next part', async () => {
  const controller = new AbortController();
  const it = context();
  const run = summarize({ ...it, signal: controller.signal, onPart: (part) => part === 2 && controller.abort() }, 'One two three four five six. '.repeat(30), 'long');
  await expect(run).rejects.toThrow(/aborted/);
  expect(it.engine.prompts.length).toBeLessThanOrEqual(2);
});

test('an answer ends at the limit, at a stop string, or by itself', async () => {
  async function* letters(text: string): AsyncGenerator<number> {
    for (const letter of text) yield letter.charCodeAt(0);
  }
  const decoder = { decode: (ids: readonly number[]) => String.fromCharCode(...ids) } as Model['tokenizer'];
  const say = async (text: string, maxNewTokens: number, stop: string[]) => (await collect(letters(text), 3, decoder, { maxNewTokens, stop })).generated;
  expect((await say('hello', 3, [])).text).toBe('hel');
  expect(await say('hello. more', 99, ['.'])).toMatchObject({ text: 'hello', promptTokens: 3 });
  expect((await say('hello', 99, [])).generatedTokens).toBe(5);
});

test('the wanted engine is taken where it can run the package', () => {
  const make = (id: 'executorch' | 'litertlm', target: string, able = true) => ({ id, title: id, target, available: () => able, create: async () => new Shouter() });
  const engines = [make('executorch', 'executorch'), make('litertlm', 'litert')];
  const manifest = tinyManifest({});
  expect(chooseEngine(engines, manifest, 'executorch')?.id).toBe('litertlm');
  expect(chooseEngine([make('litertlm', 'litert', false)], manifest, null)).toBeNull();
  expect(() => checkMemory(manifest, 'litert', 1100)).toThrow(/memory/);
  expect(() => checkMemory(manifest, 'litert', null)).not.toThrow();
});
