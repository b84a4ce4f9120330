/** A task under way on a screen: text that grows, what is happening, and a way to stop. */
import { useCallback, useEffect, useRef, useState } from 'react';

import { asAppError, type AppError } from '../errors';
import type { Installed } from '../packages/library';
import type { Task } from '../packages/manifest';
import { borrow } from '../state/engine';
import type { TaskContext } from '../tasks/run';

export interface TaskRun {
  readonly phase: 'idle' | 'loading' | 'working' | 'stopped';
  readonly text: string;
  readonly part: { readonly part: number; readonly parts: number } | null;
  readonly error: AppError | null;
}

const IDLE: TaskRun = { phase: 'idle', text: '', part: null, error: null };

type Work = (context: TaskContext) => Promise<string>;

export function useTask() {
  const [run, setRun] = useState<TaskRun>(IDLE);
  const controller = useRef<AbortController | null>(null);
  useEffect(() => () => controller.current?.abort(), []);

  const begin = useCallback(async (installed: Installed, task: Task, work: Work): Promise<string | null> => {
    controller.current?.abort();
    const mine = (controller.current = new AbortController());
    setRun({ ...IDLE, phase: 'loading' });
    let text = '';
    try {
      const onText = (piece: string) => {
        text += piece;
        setRun((now) => ({ ...now, text }));
      };
      const onPart = (part: number, parts: number) => setRun((now) => ({ ...now, part: parts > 1 ? { part, parts } : null }));
      const whole = await borrow(installed, mine, ({ engine, model }) => {
        setRun({ ...IDLE, phase: 'working' });
        return work({ engine, model, task, signal: mine.signal, onText, onPart });
      });
      setRun({ ...IDLE, text: whole });
      return whole;
    } catch (error) {
      const known = asAppError(error, 'engine');
      setRun({ ...IDLE, text, phase: known.code === 'aborted' ? 'stopped' : 'idle', error: known.code === 'aborted' ? null : known });
      return null;
    }
  }, []);

  const stop = useCallback(() => controller.current?.abort(), []);
  const reset = useCallback(() => setRun(IDLE), []);
  return { run, begin, stop, reset };
}
