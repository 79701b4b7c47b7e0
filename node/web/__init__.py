"""The page that a node serves; its sources are TypeScript, built into dist/ by scripts/build_web."""
