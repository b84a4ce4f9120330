/** What the two task screens share: the button row, what is happening, the empty state, the history. */
import { useEffect, useState } from 'react';
import { Pressable, View } from 'react-native';

import type { Key } from '../i18n';
import { useWords } from '../i18n';
import { systemTasks } from '../platform/system';
import type { SystemAsk } from '../platform/system.types';
import { history, settings, type Entry } from '../state/settings';
import { useStore } from '../state/store';
import { Button, Card, Icon, Notice, styles, Title, Words, type IconName } from './parts';
import { space, TOUCH, useColors } from './theme';
import type { TaskRun } from './useTask';

export function ActionRow({ run, label, icon, disabled, onStart, onStop }: {
  run: TaskRun;
  label: string;
  icon: IconName;
  disabled: boolean;
  onStart: () => void;
  onStop: () => void;
}) {
  const t = useWords();
  const busy = isBusy(run);
  return busy ? (
    <Button kind="plain" icon="stop" label={t('stop')} onPress={onStop} testID="stop" />
  ) : (
    <Button kind="main" icon={icon} label={label} disabled={disabled} onPress={onStart} testID="start" />
  );
}

export const isBusy = (run: TaskRun): boolean => run.phase === 'loading' || run.phase === 'working';

export function RunNotice({ run }: { run: TaskRun }) {
  const t = useWords();
  if (run.error) {
    return (
      <View style={{ gap: space.xs }}>
        <Notice kind="error">{t(`error_${run.error.code}`)}</Notice>
        {run.error.code === 'engine' && <Words small soft>{run.error.detail}</Words>}
      </View>
    );
  }
  if (run.phase === 'loading') return <Notice busy>{t('loadingModel')}</Notice>;
  if (run.phase === 'stopped') return <Notice>{t('stopped')}</Notice>;
  if (run.phase === 'working') return <Notice busy>{run.part ? t('part', run.part) : t('working')}</Notice>;
  return null;
}

/** Said where no installed package does the task. */
export function NoPackage({ reason, onOpenModels, system }: { reason: Key; onOpenModels: () => void; system?: Omit<SystemAsk, 'text' | 'length'> }) {
  const colors = useColors();
  const t = useWords();
  const [own, setOwn] = useState(false);
  const asked = system && `${system.task} ${system.source} ${system.target}`;
  useEffect(() => {
    const [task, source, target] = (asked ?? '').split(' ');
    if (source && target) void systemTasks.ready({ task: task as SystemAsk['task'], source, target }).then(setOwn);
  }, [asked]);
  return (
    <Card>
      <View style={{ alignItems: 'center', gap: space.m, paddingVertical: space.l }}>
        <Icon name="cube-outline" size={44} color={colors.accent} />
        <Title>{t('noPackage')}</Title>
        <View style={{ maxWidth: 320 }}>
          <Words soft centered>{t(reason)}</Words>
        </View>
        <Button kind="main" label={t('openModels')} onPress={onOpenModels} />
        {own && <Button kind="quiet" label={t('useSystemNow')} onPress={() => settings.set({ system: true })} />}
      </View>
    </Card>
  );
}

export function History({ task, onUse }: { task: Entry['task']; onUse: (entry: Entry) => void }) {
  const t = useWords();
  const entries = useStore(history).entries.filter((entry) => entry.task === task);
  if (entries.length === 0) return null;
  const clear = () => history.set({ entries: history.get().entries.filter((entry) => entry.task !== task) });
  return (
    <View style={{ gap: space.s }}>
      <View style={styles.between}>
        <Title>{t('history')}</Title>
        <Button kind="quiet" label={t('clearHistory')} onPress={clear} />
      </View>
      <Card>
        {entries.slice(0, 10).map((entry) => (
          <Pressable key={entry.id} role="button" onPress={() => onUse(entry)} style={{ minHeight: TOUCH, justifyContent: 'center' }}>
            <Words small soft>{clip(entry.input, 70)}</Words>
            <Words>{clip(entry.output, 140)}</Words>
          </Pressable>
        ))}
      </Card>
    </View>
  );
}

const clip = (text: string, length: number): string => (text.length > length ? `${text.slice(0, length).trimEnd()}…` : text);
