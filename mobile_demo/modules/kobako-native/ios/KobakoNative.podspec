Pod::Spec.new do |s|
  s.name           = 'KobakoNative'
  s.version        = '0.1.0'
  s.summary        = 'SHA-256 of files, and stateful Core ML models'
  s.license        = 'Apache-2.0'
  s.author         = 'kobako'
  s.homepage       = 'https://github.com/kobako/kobako'
  s.platforms      = { :ios => '18.0' }
  s.source         = { git: '' }
  s.static_framework = true
  s.dependency 'ExpoModulesCore'
  s.source_files = '*.swift'
end
