/** Language, appearance, engine, trust, privacy. */
import { useState } from 'react';
import { View } from 'react-native';

import { AppError } from '../../errors';
import { ENGINES } from '../../engine/index';
import { useWords, type Key } from '../../i18n';
import { fingerprint } from '../../packages/keys';
import { engineState, unload } from '../../state/engine';
import { packages, start } from '../../state/packages';
import { settings } from '../../state/settings';
import { useStore } from '../../state/store';
import { rebound } from '../../tasks/bindings';
import { LabelledField } from '../fields';
import { Button, Card, IconButton, Notice, Segments, styles, SwitchRow, Title, Words } from '../parts';
import { space } from '../theme';

export function SettingsScreen() {
  const t = useWords();
  const chosen = useStore(settings);
  const engine = useStore(engineState);
  const languages = [
    { value: 'en', label: 'English' },
    { value: 'ja', label: '日本語' },
  ] as const;
  const themes = (['system', 'light', 'dark'] as const).map((value) => ({ value, label: t(value) }));
  const engines = [{ value: 'auto', label: t('automatic') }, ...ENGINES.map((one) => ({ value: one.id as string, label: one.title }))];
  const setEngine = (value: string) => {
    settings.set({ engine: ENGINES.find((one) => one.id === value)?.id ?? null });
    void unload();
  };
  return (
    <View style={{ gap: space.m }}>
      <Title>{t('language')}</Title>
      <Segments label={t('language')} value={chosen.language} options={languages} onChange={(language) => settings.set({ language })} />
      <Title>{t('appearance')}</Title>
      <Segments label={t('appearance')} value={chosen.theme} options={themes} onChange={(theme) => settings.set({ theme })} />
      <Title>{t('engineName')}</Title>
      <Segments label={t('engineName')} value={chosen.engine ?? 'auto'} options={engines} onChange={setEngine} />
      {engine.state === 'ready' && (
        <View style={styles.between}>
          <View style={{ flexShrink: 1 }}>
            <Words small soft>{t('loaded', { name: engine.name ?? '' })}</Words>
          </View>
          <Button kind="quiet" label={t('unload')} onPress={() => void unload()} />
        </View>
      )}
      <Bindings />
      <Trust />
      <Title>{t('privacy')}</Title>
      <Card>
        <Words soft>{t('privacyText')}</Words>
        <SwitchRow label={t('keepHistory')} value={chosen.keepHistory} onChange={(keepHistory) => settings.set({ keepHistory })} />
      </Card>
    </View>
  );
}

/** Shown only where there is a choice. */
function Bindings() {
  const t = useWords();
  const { bindings } = useStore(settings);
  const { installed } = useStore(packages);
  const tasks = (['translate', 'summarize'] as const)
    .map((task) => ({ task, able: installed.filter((one) => one.manifest.tasks.some((its) => its.name === task)).map((one) => one.manifest.name) }))
    .filter(({ able }) => able.length > 1);
  if (tasks.length === 0) return null;
  return (
    <>
      <Title>{t('taskModels')}</Title>
      {tasks.map(({ task, able }) => (
        <Card key={task} label={t(task as Key)}>
          <Words small soft>{t(task as Key)}</Words>
          <Segments
            label={t(task as Key)}
            value={bindings[task] ?? able[0] ?? ''}
            options={able.map((name) => ({ value: name, label: name }))}
            onChange={(name) => settings.set({ bindings: rebound(bindings, task, name) })}
          />
        </Card>
      ))}
    </>
  );
}

function Trust() {
  const t = useWords();
  const { keys, allowUnsigned } = useStore(settings);
  const [name, setName] = useState('');
  const [pem, setPem] = useState('');
  const [error, setError] = useState<AppError | null>(null);
  const add = () => {
    try {
      fingerprint(pem);
      settings.set({ keys: [...keys.filter((key) => key.name !== name.trim()), { name: name.trim(), pem }] });
      setName('');
      setPem('');
      setError(null);
      void start(); // what was looked at may be trusted now
    } catch (reason) {
      setError(reason as AppError);
    }
  };
  const drop = (one: string) => {
    settings.set({ keys: keys.filter((key) => key.name !== one) });
    void start();
  };
  return (
    <>
      <Title>{t('trust')}</Title>
      <Card>
        <Words soft>{t('trustWhy')}</Words>
        {keys.length === 0 && <Words small soft>{t('noKeys')}</Words>}
        {keys.map((key) => (
          <View key={key.name} style={styles.between}>
            <View style={{ flexShrink: 1 }}>
              <Words>{key.name}</Words>
              <Words small soft>{`${fingerprint(key.pem).slice(0, 24)}…`}</Words>
            </View>
            <IconButton label={`${t('remove')}: ${key.name}`} icon="trash-outline" onPress={() => drop(key.name)} />
          </View>
        ))}
        <LabelledField label={t('keyName')} value={name} onChangeText={setName} />
        <LabelledField label={t('keyText')} value={pem} onChangeText={setPem} multiline placeholder="-----BEGIN PUBLIC KEY-----" />
        {error && <Notice kind="error">{error.detail}</Notice>}
        <Button icon="key-outline" label={t('addKey')} disabled={name.trim() === '' || pem.trim() === ''} onPress={add} />
        <SwitchRow label={t('allowUnsigned')} value={allowUnsigned} onChange={(value) => settings.set({ allowUnsigned: value })} />
      </Card>
    </>
  );
}
