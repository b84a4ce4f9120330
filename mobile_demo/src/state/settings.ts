/** What the user chose, kept on the device. */
import { getLocales } from 'expo-localization';

import { BUILT_IN_KEY, OFFERED } from '../config';
import type { EngineId } from '../engine/types';
import type { TrustedKey } from '../packages/keys';
import { kv } from '../platform/kv';
import { createStore } from './store';

export type Language = 'en' | 'ja';
export type Theme = 'system' | 'light' | 'dark';

export interface Settings {
  readonly language: Language;
  readonly theme: Theme;
  readonly engine: EngineId | null;
  /** Packages without a trusted signature may be installed, after asking. */
  readonly allowUnsigned: boolean;
  readonly keys: readonly TrustedKey[];
  /** Addresses of packages to offer. */
  readonly sources: readonly string[];
  /** Which package does which task; a task that is not here takes the first that can. */
  readonly bindings: Readonly<Record<string, string>>;
  /** Let the platform's own models answer where they are ready. */
  readonly system: boolean;
  readonly keepHistory: boolean;
  readonly source: string;
  readonly target: string;
}

const defaults = (): Settings => ({
  language: getLocales()[0]?.languageCode === 'ja' ? 'ja' : 'en',
  theme: 'system',
  engine: null,
  allowUnsigned: false,
  keys: BUILT_IN_KEY ? [{ name: 'kobako', pem: BUILT_IN_KEY }] : [],
  sources: OFFERED,
  bindings: {},
  system: false,
  keepHistory: true,
  source: 'en',
  target: 'fr',
});

function stored<T>(key: string, fallback: T): T {
  try {
    const text = kv.get(key);
    return text === null ? fallback : { ...fallback, ...JSON.parse(text) };
  } catch {
    return fallback; // a damaged file must not keep the app from starting
  }
}

export const settings = createStore<Settings>(stored('settings', defaults()), (value) => kv.set('settings', JSON.stringify(value)));

/** One translation or summary that was made. */
export interface Entry {
  readonly id: string;
  readonly task: 'translate' | 'summarize';
  readonly input: string;
  readonly output: string;
  readonly languages?: string;
}

const MOST_ENTRIES = 50;

export const history = createStore<{ readonly entries: readonly Entry[] }>(stored('history', { entries: [] as readonly Entry[] }), (value) =>
  kv.set('history', JSON.stringify(value)),
);

export function remember(entry: Omit<Entry, 'id'>): void {
  if (!settings.get().keepHistory) return;
  const id = `${Date.now()}-${Math.random().toString(36).slice(2, 8)}`;
  history.set({ entries: [{ id, ...entry }, ...history.get().entries].slice(0, MOST_ENTRIES) });
}
