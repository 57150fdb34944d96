"use strict";
// Figures to zoom into and point at take the place of the drawings, each when it comes into view.
(() => {
  const { figures, dark } = JSON.parse(document.getElementById("live-data").textContent);
  const night = matchMedia("screen and (prefers-color-scheme: dark)");
  const light = new Map();
  const shown = [];

  const turned = (colour) => {
    const name = typeof colour === "string" ? colour.toLowerCase() : colour;
    return night.matches && Object.hasOwn(dark, name) ? dark[name] : colour;
  };
  // Every colour is remembered as it was drawn, so that a page can be turned and turned back.
  function paint(document_) {
    for (const model of document_.all_models) {
      for (const property of model) {
        if (!/color$|^palette$/.test(property.attr)) continue;
        const id = model.id + " " + property.attr + " " + shown.indexOf(document_);
        const now = property.get_value();
        if (!light.has(id)) light.set(id, now);
        const was = light.get(id);
        let next = was;
        if (Array.isArray(was)) next = was.map(turned);
        else if (was && typeof was === "object" && "value" in was) next = { ...was, value: turned(was.value) };
        else next = turned(was);
        model.setv({ [property.attr]: next });
      }
    }
  }
  function quiet(document_) {
    // Where fingers scroll, a figure must not catch them: they choose a tool first.
    if (!matchMedia("(pointer: coarse)").matches) return;
    for (const model of document_.all_models) {
      if (model.type === "Toolbar") model.active_drag = null;
      if (/^(BoxZoomTool|PanTool|RangeTool|BoxSelectTool)$/.test(model.type)) model.active = false;
    }
  }

  async function show(figure) {
    const name = figure.dataset.live;
    const { document: body, roots } = figures[name];
    const places = [...figure.querySelectorAll(".live > div")];
    const box = figure.querySelector(".live");
    box.hidden = false;
    figure.classList.add("lively");
    try {
      const item = {
        docid: name, root_ids: roots,
        roots: Object.fromEntries(roots.map((id, place) => [id, places[place].id])),
      };
      const views = await Bokeh.embed.embed_items({ [name]: body }, [item]);
      const document_ = (Array.isArray(views) ? views[0] : views).roots[0].model.document;
      shown.push(document_);
      paint(document_);
      quiet(document_);
      figure.dataset.state = "live";
    } catch (error) {
      box.hidden = true;
      figure.classList.remove("lively");
      console.error(error);
    }
  }

  night.addEventListener("change", () => shown.forEach(paint));
  const watcher = new IntersectionObserver((seen) => {
    for (const one of seen) {
      if (!one.isIntersecting) continue;
      watcher.unobserve(one.target);
      show(one.target);
    }
  }, { rootMargin: "600px" });
  document.querySelectorAll("figure[data-live]").forEach((figure) => watcher.observe(figure));
})();
