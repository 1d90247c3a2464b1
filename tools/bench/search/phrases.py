"""Texts of the made-up documents: pairs of Chinese and English. None of it is real."""

from __future__ import annotations


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (chinese, english)
        for line in text.strip().splitlines()
        for chinese, _, english in [line.strip().partition(" ")]
    )


SHOPS = _pairs("""
    晨光文具店 Sunrise Stationery
    永辉超市 Evergreen Supermarket
    同仁堂药房 Harmony Pharmacy
    新华书店 Xinhua Bookstore
    五金建材行 Ironside Hardware
    花园便利店 Garden Convenience
    乐高玩具城 Happy Toys
    海味干货铺 Oceanside Dry Goods
""")
RESTAURANTS = _pairs("""
    老四川火锅 Old Sichuan Hotpot
    江南小馆 Jiangnan Bistro
    蓝山咖啡 Blue Mountain Coffee
    兰州拉面馆 Lanzhou Noodles
    粤式早茶楼 Cantonese Dim Sum
    樱花寿司 Sakura Sushi
""")
COMPANIES = _pairs("""
    远航科技有限公司 Voyager Technology Ltd
    恒达建筑设计院 Hengda Architects
    天工机械制造厂 Tiangong Machinery
    明德律师事务所 Mingde Law Firm
    绿野农业合作社 Greenfield Farmers
    星辰影视传媒 Starlight Media
    仁爱口腔诊所 Renai Dental Clinic
""")
GOODS = _pairs("""
    笔记本 Notebook
    圆珠笔 Ballpoint Pen
    鲜牛奶 Fresh Milk
    全麦面包 Wheat Bread
    洗衣液 Laundry Liquid
    感冒冲剂 Cold Remedy
    维生素片 Vitamin Tablets
    充电器 Charger
    电风扇 Electric Fan
    螺丝刀 Screwdriver
    羊毛围巾 Wool Scarf
    雨伞 Umbrella
    矿泉水 Mineral Water
    巧克力 Chocolate
    橄榄油 Olive Oil
    台灯 Desk Lamp
    儿童绘本 Picture Book
    干电池 Dry Battery
""")
DISHES = _pairs("""
    宫保鸡丁 Kung Pao Chicken
    麻婆豆腐 Mapo Tofu
    北京烤鸭 Peking Duck
    鱼香肉丝 Shredded Pork
    扬州炒饭 Fried Rice
    酸辣土豆丝 Sour Potato Strips
    红烧牛肉面 Beef Noodles
    清蒸鲈鱼 Steamed Perch
    葱油饼 Scallion Pancake
    珍珠奶茶 Bubble Tea
    蜂蜜柚子茶 Honey Pomelo Tea
    三文鱼刺身 Salmon Sashimi
    提拉米苏 Tiramisu
    凉拌黄瓜 Cucumber Salad
    玉米浓汤 Corn Soup
    小笼包 Soup Dumplings
    虾饺 Shrimp Dumplings
    杨枝甘露 Mango Sago
""")
SIGN_TEXTS = _pairs("""
    请勿吸烟 No Smoking
    禁止停车 No Parking
    小心地滑 Wet Floor
    前方施工 Road Work Ahead
    安全出口 Emergency Exit
    免费停车场 Free Parking
    请排队等候 Queue Here
    高压危险 High Voltage
    游客止步 Staff Only
    减速慢行 Slow Down
    失物招领 Lost and Found
    无障碍通道 Step Free Access
    营业时间 Opening Hours
    消防通道 Fire Lane
""")
PLACES = _pairs("""
    人民广场站 Peoples Square Station
    滨江公园 Riverside Park
    第三教学楼 Teaching Building Three
    中央图书馆 Central Library
    儿童医院 Childrens Hospital
    国际机场 International Airport
    体育中心 Sports Centre
    农贸市场 Farmers Market
""")
CITIES = _pairs("""
    北京 Beijing
    上海 Shanghai
    广州 Guangzhou
    成都 Chengdu
    杭州 Hangzhou
    西安 Xian
    武汉 Wuhan
    南京 Nanjing
    重庆 Chongqing
    哈尔滨 Harbin
    昆明 Kunming
    乌鲁木齐 Urumqi
""")
PEOPLE = _pairs("""
    王建国 Wang Jianguo
    李小红 Li Xiaohong
    张伟 Zhang Wei
    陈思远 Chen Siyuan
    刘芳 Liu Fang
    赵云龙 Zhao Yunlong
    欧阳雪 Ouyang Xue
    周晓东 Zhou Xiaodong
    孙丽萍 Sun Liping
    马腾飞 Ma Tengfei
""")
TITLES = _pairs("""
    销售经理 Sales Manager
    首席工程师 Chief Engineer
    财务总监 Finance Director
    主治医师 Attending Physician
    产品设计师 Product Designer
    高级律师 Senior Lawyer
""")
ROADS = _pairs("""
    世纪大道 Century Avenue
    解放路 Jiefang Road
    长江西路 Yangtze West Road
    中山北街 Zhongshan North Street
    科技园三路 Science Park Road
    环湖东路 Lakeside East Road
""")
MESSAGES = _pairs("""
    明天下午三点开会 The meeting is at three tomorrow
    会议室改到二楼 The room moved upstairs
    收到我会提前十分钟到 Got it I will be early
    记得带上充电器 Remember to bring the charger
    晚上一起吃火锅吗 Shall we have dinner together
    快递放在门卫室了 The parcel is with the porter
    无线密码是向日葵 The wifi password is sunflower
    航班延误两个小时 The flight is two hours late
    生日快乐万事如意 Happy birthday to you
    作业已经上传完毕 The homework has been uploaded
    周末去爬山怎么样 How about hiking on Sunday
    发票抬头请写公司名称 Put the company name on the invoice
    营业执照复印件发我一份 Send me a copy of the business licence
    小区今晚停水 No water in the building tonight
    钥匙在信箱里 The key is in the mailbox
    退款三天内到账 The refund takes three days
""")
