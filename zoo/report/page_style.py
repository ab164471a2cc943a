"""The look of the report page."""

from zoo.report.colours import INK

__all__ = ["NARROW_SCREEN", "STYLE"]

#: Screens up to so many pixels get the narrow pictures.
NARROW_SCREEN = 700

STYLE = f"""
:root {{ color-scheme: light; }}
body {{ margin: 0; background: #f4f3ef; color: {INK};
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 28px 24px 60px; }}
header {{ border-bottom: 3px solid {INK}; margin-bottom: 22px; }}
h1 {{ font-size: 30px; letter-spacing: -0.01em; margin: 0 0 6px; }}
h2 {{ font-size: 20px; margin: 40px 0 10px; }}
dl {{ display: flex; flex-wrap: wrap; gap: 4px 30px; margin: 0 0 14px; }}
dt {{ font-size: 11px; text-transform: uppercase; letter-spacing: 0.06em; color: #6c7079; }}
dd {{ margin: 0; font-weight: 600; }}
figure {{ margin: 0 0 18px; background: #fff; border-radius: 8px; padding: 14px;
  box-shadow: 0 1px 3px rgba(0, 0, 0, 0.09); }}
figure img {{ display: block; max-width: 100%; height: auto; margin: 0 auto; }}
figcaption {{ font-size: 13px; color: #565a63; margin-top: 8px; max-width: 88ch; }}
table {{ border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  background: #fff; border-radius: 8px; box-shadow: 0 1px 3px rgba(0, 0, 0, 0.09); }}
th, td {{ text-align: left; padding: 5px 11px; border-bottom: 1px solid #ecebe6; }}
th {{ font-size: 11px; text-transform: uppercase; letter-spacing: 0.04em; color: #6c7079; }}
tr:last-child td {{ border-bottom: 0; }}
table.key b {{ display: inline-block; min-width: 40px; text-align: center; border-radius: 5px;
  padding: 2px 6px; }}
.scroll {{ overflow-x: auto; }}
details {{ margin-top: 34px; }}
summary {{ cursor: pointer; font-weight: 600; margin-bottom: 10px; }}
.note {{ color: #8a5a00; }}
@media (max-width: {NARROW_SCREEN}px) {{
  main {{ padding: 16px 10px 40px; }}
  figure {{ padding: 8px; }}
  h1 {{ font-size: 25px; overflow-wrap: anywhere; }}
  dl {{ gap: 4px 20px; }}
  th, td {{ padding: 5px 8px; }}
}}
@media print {{ body {{ background: #fff; }} figure, table {{ box-shadow: none; }} }}
"""
