"""Schema 1 -> schema 2 of the shipped records, once."""
import json, shutil, sys
from pathlib import Path
import numpy as np
from bench.config import loader, settings
from bench.config.schema import Suite, tuples
from bench.metrics import registry
from bench.results import storage
from bench.results.record import *
INPUTS={"rgb":"rgb","l":"L","ab":"ab","above":"above_diagonal","below":"below_diagonal"}
NAMES={"random_init_l":"random_init-L","random_init_lab":"random_init-L-ab","random_init_halves":"random_init-above_diagonal-below_diagonal"}
CACHE=Path("/root/migrate_cache")
def recipe(old):
    new={("views" if k=="images" else "optimizer" if k=="optimiser" else k):v for k,v in old.items()}
    return new
def suite_of(s):
    y=lambda f:f.split("/")[-1]
    voc=s["voc"]; d={"pretraining":{"kind":"image_folder","train":"pretraining" if s["corpus"]["folder"]=="corpus" else s["corpus"]["folder"],"damaged":s["corpus"]["damaged"]}}
    d["voc"]={"kind":"voc","train":[f'{y(voc["folder"])}/{voc["train"]}'],"test":[f'{y(voc["folder"])}/{voc["test"]}'],"classes":voc["classes"],"min_positives":voc["min_positives"]}
    seg=s.get("voc_seg")
    if seg:
        f=y(seg["folder"] or voc["folder"])
        d["voc_masks"]={"kind":"voc_masks","train":[f'{f}/{seg["train"]}'],"test":[f'{f}/{seg["test"]}'],"masks":seg["masks"],"classes":voc["classes"]}
    tasks={"voc_cls":{"dataset":"voc","size":voc["size"],**s["probe"]}}
    for t in ("voc_det","voc_seg","voc_cls_finetune"):
        if s.get(t):
            sec={k:v for k,v in s[t].items()}
            sec["views"]=sec.pop("images"); sec["optimizer"]=sec.pop("optimiser"); sec["selection_fraction"]=sec.pop("trial"); sec["validation_fraction"]=sec.pop("held_out")
            if t=="voc_seg":
                for k in ("folder","train","test","masks"): sec.pop(k)
            if t=="voc_det": sec["metric"]={"11-point":"AP50","area":"AP50_area"}[sec["metric"]]
            tasks[t]=sec
    syn=s.get("scenes")
    if syn: syn={**{"validation":1000},**{("pretraining" if k=="corpus" else k):v for k,v in syn.items()}}
    rec={m:recipe(r) for m,r in s["recipes"].items()}
    return Suite.model_validate(tuples({"name":s["name"],"summary":s["summary"],"seeds":s["seeds"],"backbone":s["backbone"],"synthetic":syn,"datasets":d,"pretraining":recipe(s["pretraining"]),"recipes":rec,"tasks":tasks}))
def hyper(task,r,ts):
    sel=r["selection"]
    if task=="voc_cls":
        return HyperparameterFacts(selected={"stage":sel["stage"],"cost":sel["cost"]},num_settings=sel["candidates"],split=f'{sel["folds"]}-fold cross-validation of voc train',tried={"cost":sel["costs"],"stage_validation_mAP":r["scores"]["stage_cv_mAP"]})
    return HyperparameterFacts(selected={"learning_rate":sel["learning_rate"]},num_settings=sel["candidates"],split=f'{sel["held_out"]:.0%} of {ts["dataset"]} train',tried={"learning_rate":sel["learning_rates"],"validation_score":sel["held_out_scores"]})
def convert(path, shipped):
    r=json.load(path.open()); suite=suite_of(r["suite_settings"])
    old=r["method"]; m=NAMES.get(old,old); task=r["task"]
    if shipped is not None: assert suite.sha256==shipped.sha256,(path,"suite")
    rec=settings.resolved_recipe(suite,m,CACHE); ts=settings.resolved_task_settings(suite,task,CACHE)
    if shipped is not None:
        assert rec==settings.resolved_recipe(shipped,m,CACHE),(path,"recipe"); assert ts==settings.resolved_task_settings(shipped,task,CACHE),(path,ts)
        assert all(suite.datasets[k]==shipped.datasets[k] for k in ("pretraining",ts["dataset"])),(path,"datasets")
    arrays=storage.load_arrays(path.with_suffix(".npz"))
    metric={"voc_cls":"mAP","voc_cls_finetune":"mAP_step","voc_det":ts.get("metric"),"voc_seg":"mIoU"}[task]
    M=registry.get(metric); value=registry.value(M,arrays); assert abs(value-r["value"])<1e-9,(path,value,r["value"])
    pc=registry.per_class(M,arrays); assert all(abs(pc[k]-v)<1e-9 for k,v in r["scores"]["per_class"].items()) and len(pc)==len(r["scores"]["per_class"]),path
    sc=r["scores"]; sel=r["selection"]
    diag={k:v for k,v in sc.items() if k.startswith(("mAP_","AP50_","COCO","pixel")) and k!="mAP"}
    if task=="voc_det": diag={("AP50" if k=="AP50_11-point" else k):v for k,v in diag.items()}
    if task=="voc_cls": diag|={"best_on_test":sc["best_on_test"],"optimism":sc["optimism"],"effective_rank":sc["effective_rank"][sel["stage"]]}
    data={k.replace("corpus","pretraining_train") if k=="corpus" else k.replace("masks_","voc_masks_"):v for k,v in r["data"].items()}
    num={("pretraining_train" if k=="corpus" else k.replace("masks_","voc_masks_")):v for k,v in r["pictures"].items()}
    p=r["pretraining"]
    new=Record(suite=r["suite"],suite_sha256=suite.sha256,suite_settings=suite.shared(ts["dataset"]),method=m,method_version=1,
      role="untrained" if m.startswith("random_init") else "reference" if m=="imagenet" else "pretrained",recipe=rec,task=task,task_version=r["task_version"],task_settings=ts,seed=r["seed"],status="ok",metric=metric,value=value,per_class=pc,excluded_classes=sc["excluded_classes"],
      per_stage=sc.get("stage_mAP"),selected_stage=sel.get("stage"),diagnostics=dict(sorted(diag.items())),hyperparameters=hyper(task,r,ts),warnings=r["flags"]+([f'{sel["unconverged"]} probe fits unconverged'] if sel.get("unconverged") else []),
      predictions=Predictions(**r["predictions"]),samples=r["samples"],predictions_image=r["shown"],
      encoder=EncoderFacts(backbone=r["encoder"]["backbone"],inputs=[INPUTS[i] for i in r["encoder"]["sees"]],weights_sha256=r["encoder"]["weights_sha256"],parameters=r["encoder"]["parameters"]),
      pretraining=Pretraining(views_seen=p["images_seen"],seconds=p["seconds"],logged=p["monitors"]),
      timings=r["timings"],peak_memory_mb=r["peak_memory_mb"],data=dict(sorted(data.items())),num_images=dict(sorted(num.items())),
      provenance=Provenance(method_code=r["method_code"],task_code=r["task_code"]),environment=r["environment"],created=r["created"])
    target=path.parent.parent/m/path.name
    if target!=path:
        target.parent.mkdir(parents=True,exist_ok=True)
        for f in path.parent.iterdir():
            if f!=path: shutil.move(f,target.parent/f.name)
        path.unlink(); path.parent.rmdir()
    storage.save(new,target)
for folder in map(Path,sys.argv[1:]):
    for suite in sorted(p for p in folder.iterdir() if p.is_dir()):
        shipped=loader.load(suite.name) if folder.name=="reference" else None
        for path in sorted(suite.glob("*/*/seed*.json")): convert(path,shipped)
        a=suite/"audit.json"
        if a.exists():
            t=json.load(a.open())
            if "corpus" in t:
                f=lambda d:{("num_images" if k=="pictures" else k):v for k,v in d.items()}
                t={"suite":t["suite"],"pretraining":f(t["corpus"]),"tests":{k.replace("masks_","voc_masks_"):f(v) for k,v in t["tests"].items()},"thresholds":t["thresholds"],"duplicates":[{("split" if k=="list" else "pretraining" if k=="corpus" else k):v for k,v in d.items()} for d in t["duplicates"]]}
                a.write_text(json.dumps(t,indent=1)+"\n")
        print(suite, "ok")
