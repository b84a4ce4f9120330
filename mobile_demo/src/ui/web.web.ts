/** What only a page has: its title and language, the colour around it, whether there is a network. */
import { useSyncExternalStore } from 'react';

import type { Colors } from './theme';

export function setDocument(language: string, title: string, colors: Colors): void {
  document.documentElement.lang = language;
  document.title = title;
  document.body.style.backgroundColor = colors.ground;
  document.documentElement.style.setProperty('--focus', colors.accent);
}

function subscribe(listener: () => void): () => void {
  window.addEventListener('online', listener);
  window.addEventListener('offline', listener);
  return () => {
    window.removeEventListener('online', listener);
    window.removeEventListener('offline', listener);
  };
}

export const useOnline = (): boolean => useSyncExternalStore(subscribe, () => navigator.onLine);
