/** The browser's own models, where it has them: the Summarizer and Translator interfaces of the W3C's WebML group. */
import { AppError, asAppError } from '../errors';
import type { SystemAsk, SystemTasks } from './system.types';

interface Session {
  summarizeStreaming(text: string, options: { signal: AbortSignal }): ReadableStream<string>;
  translateStreaming(text: string, options: { signal: AbortSignal }): ReadableStream<string>;
  destroy(): void;
}

interface Api {
  availability(options: object): Promise<string>;
  create(options: object): Promise<Session>;
}

const LENGTHS = { short: 'short', medium: 'medium', long: 'long' } as const;

function apiOf(task: SystemAsk['task']): Api | undefined {
  const all = globalThis as { Summarizer?: Api; Translator?: Api };
  return task === 'summarize' ? all.Summarizer : all.Translator;
}

function optionsOf({ task, source, target }: Omit<SystemAsk, 'text' | 'length'>, length: SystemAsk['length'] = 'short'): object {
  if (task === 'translate') return { sourceLanguage: source, targetLanguage: target };
  const languages = { expectedInputLanguages: [source], outputLanguage: source };
  return { type: 'tldr', format: 'plain-text', length: LENGTHS[length], ...languages };
}

async function ready(ask: Omit<SystemAsk, 'text' | 'length'>): Promise<boolean> {
  try {
    return (await apiOf(ask.task)?.availability(optionsOf(ask))) === 'available';
  } catch {
    return false; // a language it has never heard of
  }
}

export const systemTasks: SystemTasks = {
  ready,
  async run(ask, { signal, onText }) {
    const api = apiOf(ask.task);
    if (!api || !(await ready(ask))) throw new AppError('system', `${ask.task} ${ask.source} → ${ask.target}`);
    let session: Session | undefined;
    let whole = '';
    try {
      session = await api.create({ ...optionsOf(ask, ask.length), signal });
      const stream = ask.task === 'summarize' ? session.summarizeStreaming(ask.text, { signal }) : session.translateStreaming(ask.text, { signal });
      const reader = stream.getReader();
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        whole += next.value;
        onText(next.value);
      }
      return whole.trim();
    } catch (error) {
      throw signal.aborted ? new AppError('aborted', 'stopped') : asAppError(error, 'engine');
    } finally {
      session?.destroy();
    }
  },
};
