/** The browser's own models: used when they are ready, and never the reason of a download. */
import { systemTasks } from '../src/platform/system.web';
import type { SystemAsk } from '../src/platform/system.types';

const ask: SystemAsk = { task: 'summarize', text: 'It rains.', source: 'en', target: 'en', length: 'medium' };
const destroyed = jest.fn();
const create = jest.fn();

function browser(state: string, pieces: readonly string[] = []): void {
  const stream = () => new Blob([...pieces]).stream().pipeThrough(new TextDecoderStream());
  create.mockResolvedValue({ summarizeStreaming: stream, translateStreaming: stream, destroy: destroyed });
  const api = { availability: async () => state, create };
  Object.assign(globalThis, { Summarizer: api, Translator: api });
}

afterEach(() => {
  jest.clearAllMocks();
  Object.assign(globalThis, { Summarizer: undefined, Translator: undefined });
});

test.each(['unavailable', 'downloadable', 'downloading'])('one that is %s is not ready, and is not made', async (state) => {
  browser(state);
  expect(await systemTasks.ready(ask)).toBe(false);
  const listener = { signal: new AbortController().signal, onText: () => undefined };
  await expect(systemTasks.run(ask, listener)).rejects.toMatchObject({ code: 'system' });
  expect(create).not.toHaveBeenCalled();
});

test('a browser without any is not ready', async () => {
  expect(await systemTasks.ready(ask)).toBe(false);
});

test('the answer streams, and the model is given back', async () => {
  browser('available', ['Wet ', 'weather.\n']);
  let heard = '';
  const listener = { signal: new AbortController().signal, onText: (piece: string) => (heard += piece) };
  expect(await systemTasks.run({ ...ask, task: 'translate', target: 'fr' }, listener)).toBe('Wet weather.');
  expect(heard).toBe('Wet weather.\n');
  expect(create).toHaveBeenCalledWith(expect.objectContaining({ sourceLanguage: 'en', targetLanguage: 'fr' }));
  expect(destroyed).toHaveBeenCalledTimes(1);
});

test('a stop is a stop, not a failure', async () => {
  browser('available');
  const controller = new AbortController();
  create.mockImplementation(async () => {
    controller.abort();
    throw new DOMException('', 'AbortError');
  });
  await expect(systemTasks.run(ask, { signal: controller.signal, onText: () => undefined })).rejects.toMatchObject({ code: 'aborted' });
});
