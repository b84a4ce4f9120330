/** The app: five screens under one roof. */
import { StatusBar } from 'expo-status-bar';
import * as SystemUI from 'expo-system-ui';
import { useEffect, useState } from 'react';
import { Pressable, ScrollView, Text, View } from 'react-native';
import { SafeAreaProvider, useSafeAreaInsets } from 'react-native-safe-area-context';

import { useWords, type Key } from '../i18n';
import { keepOffline, onBackground } from '../platform/device';
import { unload, unloadIdle } from '../state/engine';
import { start } from '../state/packages';
import { settings } from '../state/settings';
import { useStore } from '../state/store';
import { Icon, type IconName } from './parts';
import { BenchScreen } from './screens/Bench';
import { ModelsScreen } from './screens/Models';
import { SettingsScreen } from './screens/Settings';
import { SummarizeScreen } from './screens/Summarize';
import { TranslateScreen } from './screens/Translate';
import { space, TOUCH, useColors, useDark } from './theme';
import { setDocument, useOnline } from './web';

type Tab = 'translate' | 'summarize' | 'models' | 'bench' | 'settings';

const TABS: readonly { readonly key: Tab; readonly icon: IconName; readonly chosen: IconName }[] = [
  { key: 'translate', icon: 'language-outline', chosen: 'language' },
  { key: 'summarize', icon: 'document-text-outline', chosen: 'document-text' },
  { key: 'models', icon: 'cube-outline', chosen: 'cube' },
  { key: 'bench', icon: 'speedometer-outline', chosen: 'speedometer' },
  { key: 'settings', icon: 'settings-outline', chosen: 'settings' },
];

export function App() {
  useEffect(() => {
    void start();
    keepOffline();
    return onBackground({ now: () => void unload(), idle: () => void unloadIdle() });
  }, []);
  return (
    <SafeAreaProvider>
      <Shell />
    </SafeAreaProvider>
  );
}

function Shell() {
  const colors = useColors();
  const dark = useDark();
  const insets = useSafeAreaInsets();
  const t = useWords();
  const { language } = useStore(settings);
  const [tab, setTab] = useState<Tab>('translate');
  useEffect(() => {
    void SystemUI.setBackgroundColorAsync(colors.ground);
    setDocument(language, `${t(tab)} · kobako`, colors);
  }, [colors, language, t, tab]);
  const openModels = () => setTab('models');
  return (
    <View style={{ flex: 1, backgroundColor: colors.ground, paddingTop: insets.top }}>
      <StatusBar style={dark ? 'light' : 'dark'} />
      <Header title={t(tab)} />
      <View role="main" style={{ flex: 1 }}>
        {/* every screen stays alive, so that a text under way is not lost by looking elsewhere */}
        <Screen shown={tab === 'translate'}><TranslateScreen onOpenModels={openModels} /></Screen>
        <Screen shown={tab === 'summarize'}><SummarizeScreen onOpenModels={openModels} /></Screen>
        <Screen shown={tab === 'models'}><ModelsScreen /></Screen>
        <Screen shown={tab === 'bench'}><BenchScreen onOpenModels={openModels} /></Screen>
        <Screen shown={tab === 'settings'}><SettingsScreen /></Screen>
      </View>
      <View role="navigation" style={{ borderTopWidth: 1, borderColor: colors.line, backgroundColor: colors.card, paddingBottom: insets.bottom }}>
        <View role="tablist" style={{ flexDirection: 'row', maxWidth: 640, width: '100%', alignSelf: 'center' }}>
          {TABS.map((one) => (
            <TabButton key={one.key} label={t(one.key as Key)} icon={one.key === tab ? one.chosen : one.icon} chosen={one.key === tab} onPress={() => setTab(one.key)} />
          ))}
        </View>
      </View>
    </View>
  );
}

function Header({ title }: { title: string }) {
  const colors = useColors();
  const t = useWords();
  const online = useOnline();
  return (
    <View role="banner" style={{ paddingHorizontal: space.l, paddingTop: space.m, paddingBottom: space.s, maxWidth: 640, width: '100%', alignSelf: 'center' }}>
      <Text role="heading" aria-level={1} style={{ fontSize: 28, fontWeight: '800', letterSpacing: -0.4, color: colors.text }}>
        {title}
      </Text>
      <View style={{ flexDirection: 'row', alignItems: 'center', gap: 6, marginTop: 2 }}>
        <Icon name={online ? 'lock-closed' : 'cloud-offline'} size={13} color={colors.accent} />
        <Text style={{ fontSize: 13, color: colors.soft }}>{t(online ? 'onDevice' : 'offline')}</Text>
      </View>
    </View>
  );
}

function Screen({ shown, children }: { shown: boolean; children: React.ReactNode }) {
  return (
    <ScrollView
      style={{ display: shown ? 'flex' : 'none' }}
      keyboardShouldPersistTaps="handled"
      contentContainerStyle={{ padding: space.l, paddingBottom: space.xl * 2, maxWidth: 640, width: '100%', alignSelf: 'center' }}
    >
      {children}
    </ScrollView>
  );
}

function TabButton({ label, icon, chosen, onPress }: { label: string; icon: IconName; chosen: boolean; onPress: () => void }) {
  const colors = useColors();
  const ink = chosen ? colors.accent : colors.soft;
  return (
    <Pressable role="tab" aria-selected={chosen} onPress={onPress} style={{ flex: 1, minHeight: TOUCH + 12, alignItems: 'center', justifyContent: 'center', gap: 2, paddingVertical: 6 }}>
      <View style={{ paddingHorizontal: 16, paddingVertical: 3, borderRadius: 999, backgroundColor: chosen ? colors.tint : 'transparent' }}>
        <Icon name={icon} size={21} color={ink} />
      </View>
      <Text numberOfLines={1} style={{ fontSize: 11.5, fontWeight: chosen ? '700' : '500', color: ink }}>
        {label}
      </Text>
    </Pressable>
  );
}
