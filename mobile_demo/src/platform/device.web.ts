/** What the browser tells of the device. */
import type { Background } from './device';

export const platform = 'web' as const;

/** In bytes, or null where the browser does not tell; Chromium says at most 8 GiB. */
export function memoryBytes(): number | null {
  const gibibytes = (navigator as { deviceMemory?: number }).deviceMemory;
  return gibibytes === undefined ? null : gibibytes * 2 ** 30;
}

export const fetchBytes = (url: string, init: RequestInit): Promise<Response> => fetch(url, { ...init, cache: 'no-store' });

/** The files of a directory the user picks, by their path inside it; null when nothing was picked. */
export function pickDirectory(): Promise<{ name: string; files: ReadonlyMap<string, Blob> } | null> {
  return new Promise((resolve) => {
    const input = document.createElement('input');
    input.type = 'file';
    input.multiple = true;
    input.webkitdirectory = true;
    input.oncancel = () => resolve(null);
    input.onchange = () => {
      const picked = Array.from(input.files ?? []);
      const name = picked[0]?.webkitRelativePath.split('/')[0] ?? '';
      const inside = (file: File) => file.webkitRelativePath.split('/').slice(1).join('/');
      resolve(picked.length > 0 ? { name, files: new Map(picked.map((file) => [inside(file), file])) } : null);
    };
    input.click();
  });
}

/** Whether there is anything to share with. */
export const canShare = (): boolean => typeof navigator.share === 'function';

export const shareText = (text: string): Promise<void> => navigator.share({ text });

export function saveText(name: string, text: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Turns the address of a package in the app's list into one that can be fetched. */
export const resolveAddress = (address: string): string => new URL(address, document.baseURI).href;

const HIDDEN_MS = 5 * 60_000;

/** Calls back when the tab has been out of sight for a while: a look at another tab should not cost a load. */
export function onBackground({ idle }: Background): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const changed = () => {
    clearTimeout(timer);
    if (document.visibilityState === 'hidden') timer = setTimeout(idle, HIDDEN_MS);
  };
  document.addEventListener('visibilitychange', changed);
  return () => document.removeEventListener('visibilitychange', changed);
}

export function describeDevice(): Record<string, string> {
  return { platform, agent: navigator.userAgent, cores: String(navigator.hardwareConcurrency) };
}

/** Keeps the app itself for use without network. */
export function keepOffline(): void {
  if ('serviceWorker' in navigator) navigator.serviceWorker.register('sw.js').catch(() => undefined);
}
