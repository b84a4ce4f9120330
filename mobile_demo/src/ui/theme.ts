/** Colours and measures; every pair of text and ground has a contrast of at least 4.5 : 1. */
import { useColorScheme } from 'react-native';

import { settings } from '../state/settings';
import { useStore } from '../state/store';

export interface Colors {
  readonly ground: string;
  readonly card: string;
  readonly field: string;
  readonly line: string;
  readonly text: string;
  readonly soft: string;
  readonly accent: string;
  readonly onAccent: string;
  readonly tint: string;
  readonly danger: string;
  readonly good: string;
}

const light: Colors = {
  ground: '#F7F4EE',
  card: '#FFFFFF',
  field: '#FBF9F5',
  line: '#E4DED3',
  text: '#22201C',
  soft: '#655F55',
  accent: '#1F5C4D',
  onAccent: '#FFFFFF',
  tint: '#E3EEE9',
  danger: '#A8321F',
  good: '#1F6B3A',
};

const dark: Colors = {
  ground: '#141513',
  card: '#1E201D',
  field: '#191B18',
  line: '#343731',
  text: '#F1EEE7',
  soft: '#ACA99F',
  accent: '#8BD0B9',
  onAccent: '#0E2A22',
  tint: '#223830',
  danger: '#FF9D8A',
  good: '#8FD6A3',
};

export const space = { xs: 4, s: 8, m: 12, l: 16, xl: 24 } as const;
export const radius = { s: 10, m: 16, full: 999 } as const;
export const TOUCH = 44; // the least side of anything that is touched

export function useDark(): boolean {
  const system = useColorScheme();
  const { theme } = useStore(settings);
  return theme === 'system' ? system === 'dark' : theme === 'dark';
}

export const useColors = (): Colors => (useDark() ? dark : light);
