"""How the page of ``leaks --html`` looks, in light and dark, on a desk and on a phone."""

STYLE = """
:root{color-scheme:light dark;--back:#f6f7f9;--card:#fff;--text:#1c2128;--soft:#5d6773;--rule:#d9dee5;--line:#2563eb;
--fit:#d9480f;--clean:#18794e;--warm:#5d6773;--suspect:#9a6700;--leaking:#c92a2a}
@media(prefers-color-scheme:dark){:root{--back:#12161b;--card:#1b2128;--text:#e6eaf0;--soft:#98a3b0;--rule:#323b46;
--line:#6ea8fe;--fit:#ff922b;--clean:#51cf8a;--warm:#98a3b0;--suspect:#e5b93c;--leaking:#ff8787}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:15px/1.45 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:20px 16px 32px}
header{margin-bottom:16px}
h1{font-size:1.45rem;margin:0}
header p,footer p{margin:4px 0;color:var(--soft)}
.note{margin:0 0 14px;padding:9px 12px;border-left:3px solid var(--suspect);background:var(--card);font-size:.92rem}
section{background:var(--card);border:1px solid var(--rule);border-radius:8px;padding:16px;margin-bottom:16px}
h2{font-size:1.15rem;margin:0 0 10px;display:flex;flex-wrap:wrap;gap:10px;align-items:center}
.verdict{font-size:.8rem;font-weight:600;padding:2px 10px;border-radius:99px;border:1px solid currentColor}
.clean{color:var(--clean)}.warming_up{color:var(--warm)}.suspect{color:var(--suspect)}.leaking{color:var(--leaking)}
dl{display:flex;flex-wrap:wrap;gap:8px 28px;margin:0 0 12px}
dt{color:var(--soft);font-size:.8rem}
dd{margin:0;font-variant-numeric:tabular-nums}
.why{margin:0 0 12px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:20px}
figure{margin:0;min-width:0}
figcaption{font-size:.9rem;margin-bottom:12px;overflow-wrap:anywhere}
.plot{display:grid;grid-template-columns:76px 1fr;font-size:.75rem;color:var(--soft);font-variant-numeric:tabular-nums}
.values{position:relative}
.values span{position:absolute;right:8px;transform:translateY(-50%);white-space:nowrap}
svg{width:100%;height:210px;display:block;overflow:hidden}
.times{grid-column:2;display:flex;justify-content:space-between;padding-top:5px}
svg *{vector-effect:non-scaling-stroke;fill:none}
.grid{stroke:var(--rule);stroke-width:1}
.samples{stroke:var(--line);stroke-width:1;opacity:.45}
.dots{stroke:var(--line);stroke-width:3.5;stroke-linecap:round}
.rss{stroke:var(--soft);stroke-width:1}
.fit{stroke:var(--fit);stroke-width:2}
svg .band{fill:var(--fit);opacity:.22}
.end,.recycled{stroke:var(--leaking);stroke-width:1.5;stroke-dasharray:6 4}
.recycled{stroke:var(--soft)}
.accused{stroke:var(--leaking);stroke-width:1}
.step{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
ul{margin:14px 0 0;padding-left:18px;font-size:.88rem;color:var(--soft)}
time{font-variant-numeric:tabular-nums;color:var(--text)}
footer{font-size:.85rem}
@media(max-width:520px){main{padding:14px 10px}section{padding:12px}.plot{grid-template-columns:64px 1fr}
svg{height:170px}}
"""
